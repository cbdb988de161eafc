"""Runs and corpora to pages and archives: what a run did, where its time goes, what is wrong with its data."""
