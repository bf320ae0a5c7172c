"""Benches: measured figures, not tests; see README.md in this folder."""
