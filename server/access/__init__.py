"""Who may do what, and how often: keys, tokens, rates."""
