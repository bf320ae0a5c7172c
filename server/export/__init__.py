"""What leaves the scoreboard as rows: the board and the log, in several formats."""
