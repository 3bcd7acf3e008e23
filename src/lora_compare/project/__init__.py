"""The files between stages: where they are, how they are written, checked and repaired."""
