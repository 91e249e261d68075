"""Decides the status of a cell."""
