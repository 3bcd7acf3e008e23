"""What a message takes is measured alone and in batches, with the adapter beside and inside."""

from pathlib import Path

import pytest

from lora_compare.compute.device import choose_machine
from lora_compare.models import latency
from lora_compare.models.tokens import read_examples
from lora_compare.params import load_params
from lora_compare.project.files import read_json
from lora_compare.project.paths import Paths


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_a_message_takes_is_in_the_cost_file(trained_project: Path, method: str) -> None:
    cost = read_json(Paths(trained_project).cost(method))
    times = {name: cost[name] for name in cost if name.startswith("classify_")}
    assert len(times) == 4
    assert times["classify_1_ms"] > 0
    assert times["classify_64_ms"] > 0
    merged = [times[f"classify_{n}_merged_ms"] for n in latency.BATCHES]
    assert all(merged) if method == "lora" else merged == [None, None]


def test_a_time_is_the_middle_one_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock[0])

    def call(seconds: float) -> None:
        clock[0] += seconds

    assert latency._median(call, [0.003, 0.001, 0.009, 0.002, 0.004]) == 3  # type: ignore[arg-type]
    assert clock[0] == pytest.approx(0.019)
    clock[0] = 0.0
    assert latency._median(call, [1.5, 1.5, 1.5]) == 1500  # type: ignore[arg-type]
    assert clock[0] == 3  # the third was not begun


def test_a_merged_adapter_is_merged_while_it_is_timed(
    trained_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = Paths(trained_project)
    params = load_params(trained_project / "params.yaml")
    merged: list[bool] = []
    load = latency.load_method

    def watched(folder: Path, base: object) -> object:
        classifier = load(folder, base)  # type: ignore[arg-type]
        layers = [layer for _, layer in latency.lora.adapted_layers(classifier.model)]
        forward = classifier.model.of_packed

        def of_packed(texts: object) -> object:
            merged.append(bool(layers[0]._unmerged))
            return forward(texts)  # type: ignore[arg-type]

        monkeypatch.setattr(classifier.model, "of_packed", of_packed)
        return classifier

    monkeypatch.setattr(latency, "load_method", watched)
    folder = next(path for path in sorted(paths.model("lora").glob("seed-*")))
    texts = read_examples(paths.tokens("validation"))
    machine = choose_machine(params.training, 128)
    latency.measure_latency(folder, paths.base, texts, machine)
    half = len(merged) // 2
    assert merged == [False] * half + [True] * half
