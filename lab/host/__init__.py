"""The host the lab runs on."""
