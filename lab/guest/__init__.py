"""Inside one guest, over SSH."""
