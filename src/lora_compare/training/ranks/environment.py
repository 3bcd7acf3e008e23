"""What torch's launchers tell a rank, and what it tells those who carry its tensors.

It imports no torch: every stage asks whether torchrun has started it.
"""

import os
import sys

TORCHRUN = "TORCHELASTIC_RUN_ID"
"""The environment variable that torchrun sets, with RANK, LOCAL_RANK, WORLD_SIZE and others."""


def is_joined() -> bool:
    """Return whether torchrun has started this process, as one of several."""
    return TORCHRUN in os.environ


def is_follower() -> bool:
    """Return whether it has, and this is not the one that leads."""
    return is_joined() and os.environ["RANK"] != "0"


def on_this_machine(devices: int) -> int:
    """Return how many of a training's ranks are on this machine: all that torchrun has not spread.

    Args:
        devices: How many there are.
    """
    return int(os.environ["LOCAL_WORLD_SIZE"]) if is_joined() else devices


def on_loopback() -> None:
    """Let this process and the other ranks of this machine listen on loopback alone."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ.setdefault(name, loopback)
