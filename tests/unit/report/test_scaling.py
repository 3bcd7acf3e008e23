"""The table of larger models: where it is shown, and what its cells say."""

from lora_compare.project.files import read_json
from lora_compare.report.scaling import FILE, larger_models


def test_it_stands_beside_full_fine_tuning_and_lora_alone() -> None:
    assert larger_models({"reference": None}) is None
    table = larger_models({"reference": {"full": "full", "lora": "lora"}})
    assert table is not None
    assert [row[0] for row in table.rows] == ["gpt2-small", "gpt2-medium", "gpt2-large", "gpt2-xl"]
    assert {len(row) for row in table.rows} == {len(table.header)} == {5}
    assert table.caption.startswith("From the benchmark, not from this run:")
    results = read_json(FILE)
    assert results["machine"]["cpu"] in table.caption
    assert results["date"] in table.caption


def test_a_cell_says_what_lora_needs_of_what_full_needs() -> None:
    table = larger_models({"reference": {}})
    assert table is not None
    small = dict(zip(table.header, table.rows[0], strict=True))
    assert small["trainable parameters"] == "666,632 of 124,441,346 (0.54 %)"
    assert small["training state"] == "810 MB of 1.9 GB (43 %)"
    assert small["artifact size"] == "2.7 MB of 498 MB (0.54 %)"
    assert table.rows[-1][table.header.index("step time")] == "n/a"
