"""Nodes of a quorum, and the servers of NATS that hold their stream."""
