"""The scoreboard and its log. Knows nothing of HTTP; see README.md in this folder."""
