"""Plans, runs, records and compares trainings; nothing heavy is imported here."""

NUMERICS = 1
"""Raised by hand whenever a change alters the numbers that a run produces; part of every run's key."""
