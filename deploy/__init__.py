"""What runs a node on other machines, and the scripts that make parts of it."""
