"""Small things that everything uses."""
