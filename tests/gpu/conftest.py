"""Where these tests compute: on CUDA, or where $LORA_COMPARE_TEST_DEVICE says."""

import os
from collections.abc import Iterator

import pytest
import torch

from lora_compare.compute.seeding import make_deterministic

# Read when cuBLAS starts; without it no product is repeatable.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@pytest.fixture(scope="session")
def device() -> torch.device:
    """CUDA; without it the tests are skipped, but for another device that is named."""
    named = torch.device(os.environ.get("LORA_COMPARE_TEST_DEVICE", "cuda"))
    if named.type == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return named


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    """Compute as stages do: deterministically, on one thread of the CPU."""
    threads = torch.get_num_threads()
    make_deterministic(1, threads=1)
    yield
    torch.set_deterministic_debug_mode("default")
    torch.set_num_threads(threads)
