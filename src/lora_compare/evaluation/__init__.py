"""The figures of one classifier."""
