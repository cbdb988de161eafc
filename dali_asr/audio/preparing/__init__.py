"""Recordings and their alignments to labelled packed corpora."""
