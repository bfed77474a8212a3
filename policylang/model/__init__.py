"""What was meant: the policy with every name resolved and every number checked."""
