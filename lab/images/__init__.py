"""Base images: verified, read-only, one folder each."""
