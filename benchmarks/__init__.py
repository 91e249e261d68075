"""Programs that measure the lab; `README.md` says what each one does. No test depends on their results."""
