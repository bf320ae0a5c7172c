"""Tests of whole processes: leaders that are killed and stopped, with clients over TCP."""
