"""Plans, runs, records and compares trainings; nothing heavy is imported here."""

from harness import paths  # first of all: it takes --config-dir out of the command line

__all__ = ["NUMERICS", "paths"]

NUMERICS = 1
"""Raised by hand whenever a change alters the numbers that a run produces; part of every run's key."""
