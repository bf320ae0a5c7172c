"""Clusters of real processes, with wires between them that can be cut."""
