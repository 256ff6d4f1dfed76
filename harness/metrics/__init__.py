"""What judges: every metric declared once, and one file per family of tasks that adds them up batch by batch."""
