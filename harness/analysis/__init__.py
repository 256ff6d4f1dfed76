"""What records say, worked out once: statistics, cells, claims."""
