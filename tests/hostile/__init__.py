"""Hostile clients against a real server process, with an honest client beside them all the time."""
