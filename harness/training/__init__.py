"""Training: from a job to a record, by the learner that its trainer names."""
