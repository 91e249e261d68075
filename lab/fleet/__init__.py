"""A run over several hosts, on dask.distributed.

dask's scheduler decides which host runs which part of a run; each host runs dask's own worker.
"""
