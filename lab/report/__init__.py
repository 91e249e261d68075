"""Reports. They only read a run's record."""
