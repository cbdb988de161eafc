"""Runs and corpora to pages."""
