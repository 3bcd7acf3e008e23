"""One training in several processes: how they start, share the work, and keep its state."""
