"""What boxlite itself told its user, and whether it was right."""
