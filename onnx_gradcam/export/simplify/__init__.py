"""Make the gradient cheaper without changing what it computes: passes over its nodes."""
