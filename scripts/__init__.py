"""Commands beside the harness; each runs as `python -m scripts.NAME`."""
