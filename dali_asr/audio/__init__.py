"""Recordings to features, with DALI's audio operators."""
