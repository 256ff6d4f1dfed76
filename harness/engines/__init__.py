"""Engines: warm workers that carry out runs."""
