"""Runs to pages: what a run did and hands in, where its time goes, and what is wrong with its data."""
