"""What a process is: its parts, its role, its start and its end."""
