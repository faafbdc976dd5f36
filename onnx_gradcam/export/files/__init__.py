"""Model files: read, checked, written atomically, with their external data."""
