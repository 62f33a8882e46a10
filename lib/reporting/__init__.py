"""From notebooks to pages: the build and its skipping of unchanged steps, HTML, PDF, cards, release, doctor."""
