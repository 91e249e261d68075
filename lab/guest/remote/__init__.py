"""Programs that run in the guest with its own Python and nothing else: no imports from the lab."""
