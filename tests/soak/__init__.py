"""A leader under steady load for any time, with restarts: nothing may grow, and nothing may be lost."""
