"""The status of a cell."""
