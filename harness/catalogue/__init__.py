"""The catalogue of losses: definition, source, tasks, use in the documents, and curve of each."""
