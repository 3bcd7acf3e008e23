"""All methods beside each other: what was measured, and the verdict."""
