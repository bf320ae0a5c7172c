"""Connections: accepted, guarded, read, and handed to a lane."""
