"""Types, shapes and constants of every tensor, as far as they can be known."""
