"""A source of labelled text into splits."""
