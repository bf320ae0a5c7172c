"""The past of a board, read from snapshots and the log in a process of its own."""
