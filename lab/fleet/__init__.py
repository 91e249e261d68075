"""A run over several hosts: certificates, the coordinator that hands out parts of it, the host workers.

Modules that import dask are imported by `lab matrix --hosts` and `lab worker` alone.
"""
