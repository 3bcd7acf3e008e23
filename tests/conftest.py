"""What all tests share: the real files, where they are."""

import os
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# As many workers as cores run at once: one thread each. Set before anything imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder with the real files; the test is skipped where there is none."""
    folder = os.environ.get("LORA_COMPARE_ASSETS")
    if not folder:
        pytest.skip("LORA_COMPARE_ASSETS names no folder with the SMS Spam Collection")
    return Path(folder)


# Random examples are the same in every run of the suite; `make fuzz` draws others every time.
# An example that takes long has hung: these machines are slow now and then.
PATIENCE = timedelta(seconds=20)
settings.register_profile("suite", derandomize=True, deadline=PATIENCE, database=None)
settings.register_profile(
    "thorough",
    max_examples=10_000,
    deadline=PATIENCE,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
