"""A node: its assembly, its start, its promotion or deposition, and its end."""
