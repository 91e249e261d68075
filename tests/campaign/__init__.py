"""A campaign of faults: small real runs of the lab, each broken once at a random moment, and then judged."""
