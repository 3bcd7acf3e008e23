"""Every fault has its tests."""

import re
from pathlib import Path

from faults.rows import ROWS


def test_every_row_has_a_test_named_after_it() -> None:
    code = "".join(p.read_text(encoding="utf-8") for p in Path(__file__).parent.glob("test_*.py"))
    tested = {int(number) for number in re.findall(r"def test_row_(\d\d)_", code)}
    assert tested == ROWS.keys()
