"""The catalogue of losses: what each is, where it comes from, where the documents use it, and what it looks like."""
