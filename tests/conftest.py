"""What all tests share: the real files, where they are."""

import os
from pathlib import Path

import pytest

# As many workers as cores run at once: one thread each. Set before anything imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder with the real files; the test is skipped where there is none."""
    folder = os.environ.get("LORA_COMPARE_ASSETS")
    if not folder:
        pytest.skip("LORA_COMPARE_ASSETS names no folder with the SMS Spam Collection")
    return Path(folder)
