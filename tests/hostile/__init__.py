"""Clients that mean harm, against a real server process, with an honest client beside them all along."""
