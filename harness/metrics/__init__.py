"""Metrics: each is declared once, and one file per family of tasks adds them up batch by batch."""
