"""Base images: verified and read-only, each in a folder of its own."""
