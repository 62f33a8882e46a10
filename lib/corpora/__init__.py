"""Where recordings come from: the tables of sources and clips, download, optional corpora, synthetic audio."""
