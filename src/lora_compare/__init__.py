"""Compare LoRA with full fine-tuning on one's own labelled text."""

import os
from importlib.metadata import version

# Threads that spin while they wait make torch ten times slower as soon as another process wants
# a core. OpenMP reads this once, when torch loads it, so it has to be set before any import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = version("lora-compare")
