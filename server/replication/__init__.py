"""Replication: replicas follow the log of a leader, or of another replica, and serve reads."""
