"""What statements mean, as rules of the ir: one row for each form of the language."""
