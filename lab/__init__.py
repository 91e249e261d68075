"""A compatibility lab for boxlite's jailer: which hosts work, why the others fail, what cures them."""

__version__ = "1.0.0"
