"""What teams build instead, with the same promise: to be measured beside this project in the same run."""
