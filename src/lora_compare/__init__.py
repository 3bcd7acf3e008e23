"""Compare LoRA with full fine-tuning on one's own labelled text."""

import os
from importlib.metadata import PackageNotFoundError, version

WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
"""How OpenMP's threads wait: spinning for as long as the work between two operations takes, then
asleep (docs/decisions/0005)."""

# OpenMP reads this once, when torch loads it, so it has to be set before any import.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.update(WAITING | {k: v for k, v in os.environ.items() if k in WAITING})

try:
    __version__ = version("lora-compare")
except PackageNotFoundError:  # the copy in a served model, where nothing is installed
    __version__ = "unknown"
