"""Engines: what carries out runs, on this machine or on many (`engine` says what all of them promise)."""
