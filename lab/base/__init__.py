"""Helpers that every other package uses."""
