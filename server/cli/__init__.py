"""The command `scoreboard`; one verb in each file."""
