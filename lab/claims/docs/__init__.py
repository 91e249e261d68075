"""The documentation of boxlite 0.10.8: what it says of hosts, read like a bug report.

Quoted are its FAQ, its page on getting started and its page on security, as of that release.
"""

TITLE = "The documentation of boxlite 0.10.8"
