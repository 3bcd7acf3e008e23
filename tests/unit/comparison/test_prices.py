"""Prices: how they are written, and which of them two methods may be compared by."""

from typing import Any

import pytest

from lora_compare.comparison.prices import (
    LATENCIES,
    NO_SAVING,
    PRICES,
    cells,
    footnote,
    machine,
    price_sentence,
    ratios,
)

RATIOS = ("parameter_ratio", "state_ratio", "step_ratio", "artifact_ratio")
MEMORY = {"training_state_bytes": 8_000_000, "peak_memory_bytes": 300_000_000}
TIMES = {
    "step_cpu_seconds": 0.01,
    "step_cpu_seconds_low": 0.0091,
    "step_cpu_seconds_high": 0.0123,
    "train_seconds": 10.0,
}


def record(name: str, part: float = 1.0, **changes: Any) -> dict[str, Any]:
    figures = {"trainable_parameters": 1000, "artifact_bytes": 4000, **MEMORY, **TIMES}
    scaled = {key: value * part for key, value in figures.items()}
    ran = {"machine": "cpu, 1 threads", "side_by_side": 1, "device": "cpu"}
    return {"method": name, **scaled, **ran, **changes}


def comparison(full: dict[str, Any], lora: dict[str, Any]) -> dict[str, Any]:
    reference = {"full": "full", "lora": "lora", **ratios(lora, full)}
    return {"methods": [full, lora], "baselines": [], "reference": reference}


def test_every_price_of_lora_is_a_share_of_fulls() -> None:
    found = ratios(record("lora", 0.5), record("full"))
    assert found == dict.fromkeys([*RATIOS, "time_ratio", "memory_ratio"], 0.5)


@pytest.mark.parametrize(
    ("lora", "full", "missing"),
    [
        ({"side_by_side": 2}, {"side_by_side": 2}, {"time_ratio"}),
        ({"side_by_side": 2}, {}, {"time_ratio", "step_ratio"}),
        ({"machine": "cpu, 2 threads"}, {}, {"time_ratio", "step_ratio"}),
        ({"step_cpu_seconds": None}, {}, {"step_ratio"}),
        ({}, {"peak_memory_bytes": None}, {"memory_ratio"}),
        ({}, {"train_seconds": 0.0, "training_state_bytes": None}, {"time_ratio", "state_ratio"}),
    ],
)
def test_times_that_were_not_taken_alike_have_no_ratio(
    lora: dict[str, Any], full: dict[str, Any], missing: set[str]
) -> None:
    found = ratios(record("lora", **lora), record("full", **full))
    assert {key for key, ratio in found.items() if ratio is None} == missing


def test_the_sentence_says_where_lora_saves_no_time() -> None:
    slow = comparison(record("full"), record("lora", 0.5, step_cpu_seconds=0.01 * NO_SAVING))
    assert price_sentence(slow) == (
        "lora needs, of full: 50 % of the trainable parameters, 50 % of the training state, 95 % "
        "of the step time, 50 % of the artifact size. It saves no time."
    )
    fast = comparison(record("full"), record("lora", 0.94))
    assert "saves no time" not in price_sentence(fast)
    unknown = comparison(record("full"), record("lora", machine="another"))
    assert "step time" not in price_sentence(unknown)
    assert "saves no time" not in price_sentence(unknown)
    assert price_sentence({**fast, "reference": None}) == ""


def test_the_footnote_tells_what_classifying_takes() -> None:
    times = dict(zip(LATENCIES, (2.5, 0.4, None, None), strict=True))
    adapted = dict(zip(LATENCIES, (3.25, 0.5, 2.5, 0.4), strict=True))
    told = footnote({"methods": [record("full", **times), record("lora", **adapted)]})
    assert "full 2.5 and 0.4; lora 3.25 and 0.5, merged 2.5 and 0.4 ms." in told
    assert "To classify" not in footnote({"methods": [record("full")]})


def test_the_footnote_marks_times_in_company_and_of_several_machines() -> None:
    alone = footnote(comparison(record("full"), record("lora", 0.5)))
    assert alone.endswith("whole process: full 10.0 s, 300 MB; lora 5.0 s, 150 MB.")
    assert "CPU time, median (quartiles). All" in alone
    both = {"side_by_side": 2, "device": "cuda"}
    beside = footnote(comparison(record("full", **both), record("lora", **both)))
    assert "GPU time, median (quartiles), 2 trainings at a time. All" in beside
    apart = footnote(comparison(record("full"), record("lora", machine="another")))
    assert "(quartiles), on different machines: not compared. All" in apart
    imported = record("theirs", train_seconds=0.0)
    assert footnote({"methods": [imported]}) == ""


def test_a_step_is_written_with_its_quartiles_in_one_unit() -> None:
    shown = cells(record("lora", parameters_of_full=1.0))
    assert list(shown) == [
        "trainable parameters",
        "of full",
        "training state",
        "step time",
        "artifact size",
    ]
    assert shown["step time"] == "10.0 ms (9.10\N{EN DASH}12.3)"
    assert cells(record("lora", step_cpu_seconds=None))["step time"] == "n/a"
    old = {k: v for k, v in record("lora").items() if not k.startswith(("step", "training_state"))}
    assert [price.text(old) for price in PRICES] == ["1,000", "n/a", "n/a", "4.0 kB"]


def test_a_machine_is_told_by_device_kind_of_cpu_arithmetic_and_threads() -> None:
    environment = {
        "device": "cpu",
        "platform": {"system": "Linux", "machine": "x86_64", "cpu_capability": "AVX2"},
        "versions": {"torch": "2.13.0"},
    }
    cost = {"device": "cpu", "dtype": "float32", "threads": 2, "environment": environment}
    assert machine(cost) == "cpu, Linux, x86_64, AVX2, float32, 2 threads"
    other = {"device": "cpu", "processor": "AMD EPYC", "threads": 1}
    assert machine(other) == "cpu, AMD EPYC, 1 threads"
