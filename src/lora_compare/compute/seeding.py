"""Seeds, thread counts and the deterministic flags that make runs repeat bit for bit."""

import os
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch


def make_deterministic(seed: int, threads: int | None = None) -> None:
    """Seed every generator and make torch choose repeatable algorithms.

    Args:
        seed: The seed of Python's, NumPy's and torch's generators.
        threads: CPU threads for torch; sums are split among them, so the last bits of a
            result depend on their number. None keeps torch's default.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    # As use_deterministic_algorithms(True), which imports torch's compiler first: a second.
    torch.set_deterministic_debug_mode("error")
    # A debugging aid of that mode writes NaN into every new tensor: a sixth of the time for
    # nothing, because no operation here reads what it has not written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if threads is not None:
        torch.set_num_threads(threads)


def throw_own_dice(seed: int, rank: int) -> None:
    """Let torch's dice fall otherwise on each of several processes, as dropout of their texts does.

    Args:
        seed: The training's seed, by which all have made the same model; the first one goes on.
        rank: This process's number.
    """
    if rank:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1)[0]))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run the block with torch's CPU generator at `seed`, then put its state back."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def random_states() -> dict[str, torch.Tensor]:
    """Return the states of torch's generators by device, for dropout that goes on later."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, torch.Tensor]) -> None:
    """Put back what `random_states` returned."""
    setters = {
        "cpu": torch.set_rng_state,
        "cuda": torch.cuda.set_rng_state,
        "mps": torch.mps.set_rng_state,
    }
    for name, state in states.items():
        setters[name](state)
