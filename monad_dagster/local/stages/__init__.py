"""Stage files and the statements that move them."""
