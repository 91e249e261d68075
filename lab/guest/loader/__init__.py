"""What runs the lab's programs in a guest: `calls.py`, followed by `once.py` over SSH or by `agent.py`.

They run with the guest's own Python and nothing else: no imports from the lab.
"""
