"""Runs to pages: what a run hands in, to Kaggle and to a course."""
