"""The listener and the ways of a connection behind it."""
