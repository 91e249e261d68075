"""boxlite's own diagnosis of its failures, and whether it was right."""
