"""What is tried on a cell in forks of its own."""
