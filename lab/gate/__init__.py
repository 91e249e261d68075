"""The release gate: one build's results compared with another's, and what that means for a release.

Everything here reads records and files; nothing starts a guest.
"""
