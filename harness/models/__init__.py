"""Models by family, and the heads that suit them to a task."""
