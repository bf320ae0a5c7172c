"""What an operator may say: the keys, their values, where they came from."""
