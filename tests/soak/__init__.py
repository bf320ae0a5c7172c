"""A leader under steady load for as long as one likes, with restarts: nothing may grow, nothing may be lost."""
