"""A site of Django with what the documents say about it."""
