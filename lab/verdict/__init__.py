"""Decides the status of a cell, and says what confined its boxes."""
