"""Studies: search, sweep, progress."""
