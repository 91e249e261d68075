"""Runs a plan on several hosts: a coordinator hands out parts of it, and workers run them.

Only `lab matrix --hosts` and `lab worker` use it. What imports dask is imported by these alone.
"""
