"""Where sound comes from: the tables of sources and clips, download, optional corpora, synthetic audio, windows."""
