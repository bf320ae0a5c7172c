"""Peers: what teams build instead, with the same promise. The benches measure them beside this project in one run."""
