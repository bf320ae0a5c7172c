"""What `deploy/` and `make dist` give to an operator, checked against the server that they are for."""
