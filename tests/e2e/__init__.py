"""The whole thing for real: leaders in their own processes, killed, stopped and asked over TCP."""
