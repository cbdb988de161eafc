"""Runs to pages: what a run did, where its time goes, and what is wrong with its data."""
