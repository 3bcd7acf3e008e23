"""Records every comparison with another implementation."""

from collections.abc import Callable

import pytest


@pytest.fixture
def parity() -> Callable[[str, str, float, float], None]:
    def check(setting: str, reference: str, tolerance: float, measured: float) -> None:
        assert measured <= tolerance, f"{setting}: {measured:.3g} > {tolerance:g}"

    return check
