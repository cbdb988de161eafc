"""Alignments to segments and labels. NumPy only: neither torch nor DALI is imported here."""
