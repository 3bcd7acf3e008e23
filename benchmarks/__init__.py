"""What an optimizer step costs here and in other implementations, on the same work.

`python -m benchmarks --help` lists the commands; docs/performance.md shows the figures.
"""
