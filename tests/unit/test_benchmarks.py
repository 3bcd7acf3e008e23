"""The benchmarks: every implementation runs, and what is made of the figures is right."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from benchmarks import __main__ as commands
from benchmarks import growth, nano, page, processes, scale, scaling, serving, steps
from benchmarks.field_texts import KINDS
from benchmarks.floor import attention_flops, prediction_flops, step_flops
from benchmarks.growth_page import growth_table
from benchmarks.jobs import IMPLEMENTATIONS, Job
from benchmarks.records import matmul_record, training_record, with_ratios
from benchmarks.worker import measure
from benchmarks.workload import length_figures, make_workload, random_texts
from lora_compare.errors import UserError
from lora_compare.models.gpt.network import GPTConfig
from lora_compare.params import PretrainingParams, load_params, parse_params
from lora_compare.project.files import read_json
from small_project import ROOT, small_params

SHAPE = {"vocab_size": 60, "context_length": 16, "n_layer": 2, "n_head": 2, "n_embd": 8}

pytestmark = [
    # PEFT still asks for a property that transformers has renamed, and says what it does for
    # the one Linear layer among GPT-2's Conv1D.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to True:UserWarning"),
]


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def make_job(implementation: str = "notebook", method: str = "lora", **changes: Any) -> Job:
    job = Job(
        implementation=implementation,
        task="train",
        method=method,
        shape=SHAPE,
        texts=[*random_texts(5, 5, 60), *random_texts(1, 9, 60)],
        labels=[0, 1, 1, 0, 1, 0],
        batch_size=2,
        padded_length=9,
        warmup=1,
        threads=1,
        device="cpu",
        rank=2,
    )
    return replace(job, **changes)


@pytest.mark.parametrize("method", steps.METHODS)
@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_every_implementation_takes_steps_that_change_the_loss(name: str, method: str) -> None:
    texts = random_texts(2, 5, 60) * 21  # the same batch every step
    result = measure(make_job(name, method, texts=texts, labels=[0, 1] * 21))
    assert len(result["seconds"]) == len(result["losses"]) == 20
    assert result["losses"][-1] < result["losses"][0]
    body = 60 * 8 + 16 * 8 + 2 * (12 * 64 + 13 * 8) + 16
    head = 16 if IMPLEMENTATIONS[name].family == "transformers" else 18
    shared = 8 * 2 * 2 * 2 if IMPLEMENTATIONS[name].family == "transformers" else 0
    adapters = 2 * (2 * (4 * 16 + 2 * 40)) + 2 * 10 - shared
    trained = {"full": body + head, "lora": adapters}
    assert result["trainable_parameters"] == trained[method]
    assert result["peak_memory_bytes"] > 10_000_000


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_every_implementation_predicts(name: str) -> None:
    result = measure(make_job(name, task="predict"))
    assert len(result["seconds"]) == 1


@pytest.mark.slow
def test_a_job_comes_back_from_a_process_of_its_own() -> None:
    job = make_job(texts=random_texts(6, 5, 60))
    there, here = processes.run_in_process(job), measure(job)
    assert there["losses"] == here["losses"]
    assert there.keys() == here.keys()


@pytest.mark.slow
def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(UserError, match="context_length"):
        processes.run_in_process(make_job(shape={"vocab_size": 60}))


def test_all_jobs_have_their_turn_before_the_next_repeat() -> None:
    turns: list[str] = []

    def run(job: Job) -> dict[str, Any]:
        turns.append(job.implementation)
        return {"turn": len(turns)}

    jobs = {name: make_job(name) for name in ("notebook", "transformers")}
    results = processes.in_turns(jobs, 2, run=run)
    assert turns == ["notebook", "transformers"] * 2
    assert results["transformers"] == [{"turn": 2}, {"turn": 4}]


def test_the_arithmetic_of_a_step_is_counted_right() -> None:
    shape = {**SHAPE, "n_layer": 1}
    lengths = [3, 5]
    # One block, d = 8: of the 8 tokens all need key and value, the 2 last ones the rest.
    linear = 2 * 64 * 8 + 10 * 64 * 2 + 16 * 2
    assert attention_flops(shape, lengths) == 4 * 8 * 8
    assert prediction_flops(shape, lengths) == 2 * linear + 4 * 8 * 8
    assert step_flops(shape, "full", lengths, rank=2) == 6 * linear + 3 * 4 * 8 * 8
    # Frozen weights: no gradient of the weight; of the first layer's input none either.
    frozen = 4 * linear - 2 * (2 * 64 * 8 + 64 * 2)
    adapters = 2 * ((4 + 6) * 8 * 8 + (4 + 6) * 8 * 8) + 2 * (4 + 6) * 8 * 2
    adapters += 2 * (6 * 16 + 2 * 6 * 40) * 2 + 2 * 6 * 10 * 2
    assert step_flops(shape, "lora", lengths, rank=2) == frozen + adapters + 3 * 4 * 8 * 8


def test_attention_counts_the_pairs_of_a_triangle_but_for_the_last_block() -> None:
    assert attention_flops(SHAPE, [3, 5]) == 4 * 8 * (6 + 15 + 8)


def figures(seconds: list[float], memory: int) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "trainable_parameters": 7,
        "total_parameters": 9,
        "peak_memory_bytes": memory,
    }


def test_a_record_is_the_median_over_repeats_of_medians_over_steps() -> None:
    job = make_job(texts=random_texts(8, 5, 60), labels=[0] * 8)
    runs = [figures([1, 2, 9], 30), figures([2, 4, 6], 10), figures([5, 3, 1], 20)]
    flops = step_flops(SHAPE, "lora", [5, 5], rank=2)
    record = training_record(job, runs, flops_per_second=10.0 * flops)
    assert record["step_seconds"] == 3
    assert record["step_seconds_of_repeats"] == [2, 4, 3]
    assert record["examples_per_second"] == 6 / 12
    assert record["peak_memory_bytes"] == 20
    assert record["floor_seconds"] == pytest.approx(0.1)
    assert record["times_floor"] == pytest.approx(30)
    assert record["padded_length"] == 9


def test_ratios_are_to_the_same_method_of_the_references() -> None:
    rows = [("notebook", "lora", 8, 100), ("transformers", "lora", 4, 50)]
    rows += [("lora-compare", "lora", 2, 25), ("lora-compare", "full", 1, 10)]
    keys = ("implementation", "method", "step_seconds", "peak_memory_bytes")
    records = [dict(zip(keys, row, strict=True)) | {"precision": "float32"} for row in rows]
    half = {"precision": "bfloat16", "method": "lora"}
    records += [
        {"implementation": "transformers-bfloat16", "step_seconds": 3, "peak_memory_bytes": 40}
        | half,
        {"implementation": "lora-compare-bfloat16", "step_seconds": 1, "peak_memory_bytes": 10}
        | half,
    ]
    ours, alone, _, ours_half = with_ratios(records, "step_seconds")[2:]
    assert ours["times_as_fast_as_notebook"] == 4
    assert ours["times_as_fast_as_transformers"] == 2
    assert ours["memory_of_notebook"] == 0.25
    assert ours["memory_of_transformers"] == 0.5
    assert alone["times_as_fast_as_notebook"] is None
    assert ours_half["times_as_fast_as_notebook"] == 8
    assert ours_half["times_as_fast_as_transformers"] == 3
    assert ours_half["memory_of_transformers"] == 0.25


def test_of_every_matrix_product_the_fastest_repeat_counts() -> None:
    def run(*rates: int) -> dict[str, Any]:
        products = [{"shape": [n], "flops_per_second": rate} for n, rate in enumerate(rates)]
        return {"float32": {"products": products}}

    record = matmul_record([run(1, 5), run(2, 4)])["float32"]
    assert [product["flops_per_second"] for product in record["products"]] == [2, 5]
    assert record["flops_per_second"] == 5


def test_padding_is_counted_to_the_longest_of_all_and_of_each_batch() -> None:
    described = length_figures([2, 4, 10, 8], batch_size=2)
    assert described["mean_tokens"] == 6
    assert described["padding_to_longest_of_all"] == pytest.approx(1 - 24 / 40)
    assert described["padding_to_longest_of_batch"] == pytest.approx(1 - 24 / 28)


def test_ones_own_messages_are_balanced_and_tokenised(tmp_path: Path) -> None:
    rows = [("no", "all is well here"), ("no", "come home soon"), ("yes", "win a prize now")]
    lines = [f"{label}\t{text} {i}" for i in range(20) for label, text in rows]
    path = tmp_path / "own.tsv"
    path.write_text("label\ttext\n" + "\n".join(lines) + "\n")
    work = make_workload(path, "gpt2-nano", 4)
    assert sum(work.labels) == len(work.labels) / 2 == 14
    assert len(work.everything) == 40
    assert work.padded_length == max(map(len, work.train)) == work.description["longest_tokens"]
    assert work.description["source"] == "own.tsv"


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "run_in_process", measure)
    monkeypatch.setattr("benchmarks.machine.MATMUL_SECONDS", 0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("in_this_process")
def test_the_commands_measure_and_write_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LORA_COMPARE_ASSETS", raising=False)
    results, written = tmp_path / "results", tmp_path / "docs" / "performance.md"
    calls = [
        ["steps", "--quick", "--threads", "1", "--output", str(results / "steps-cpu.json")],
        ["scale", "--quick", "--threads", "1", "--output", str(results / "scale-cpu.json")],
        ["write", "--results", str(results), "--page", str(written)],
    ]
    written.parent.mkdir()
    written.write_text("before\n<!-- measurements -->\nold\n<!-- /measurements -->\nafter\n")
    for call in calls:
        outcome = CliRunner().invoke(commands.main, call, catch_exceptions=False)
        assert outcome.exit_code == 0, outcome.output
    steps_file = read_json(results / "steps-cpu.json")
    assert {(r["implementation"], r["method"]) for r in steps_file["training"]} == {
        (name, method) for name in IMPLEMENTATIONS for method in steps.METHODS
    }
    assert steps_file["messages"]["source"] == "bundled corpus"
    assert len(read_json(results / "scale-cpu.json")["points"]) == 4
    text = written.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    for name in IMPLEMENTATIONS:
        assert f"| {name} |" in text
    for picture in re.findall(r"\]\((images/.*?)\)", text):
        assert (written.parent / picture).read_text().startswith("<svg")


def test_a_model_that_does_not_fit_into_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "available_memory_bytes", lambda device: 2_000_000_000)
    settings = scale.Settings(scale.SWEEPS)
    results = scale.sweep(settings, run=lambda job: figures([1.0], 1))
    left_out = {(point["model"], point["method"]) for point in results["left_out"]}
    assert ("gpt2-small", "full") in left_out
    assert ("gpt2-large", "lora") in left_out
    assert ("gpt2-small", "lora") not in left_out
    assert "gpt2-large with lora" in page.scale_table(results)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="peft, transformers"):
        commands.require_packages(("transformers",))
    commands.require_packages(("notebook",))


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks" / "results").glob("*.json")), ids=str)
def test_the_page_shows_the_results_that_are_stored(path: Path) -> None:
    results = json.loads(path.read_text())
    written = (ROOT / "docs" / "performance.md").read_text()
    kind = path.stem.partition("-")[0]
    section = {"steps": page.steps_section, "pipeline": growth_table}.get(kind, page.scale_table)
    shown = section(results)
    tables = [line for line in shown.splitlines() if line.startswith("|")]
    assert [line for line in tables if line not in written] == []


def test_a_server_holds_the_base_once_however_many_adapters_there_are(tmp_path: Path) -> None:
    names = serving.write_adapters(tmp_path, "gpt2-nano", 3)
    figures = serving.measure(tmp_path, names)
    adapters = figures.all_bytes - figures.base_bytes
    assert adapters == 3 * (figures.one_bytes - figures.base_bytes)
    stored = (tmp_path / names[0] / "model.safetensors").stat().st_size
    # The head is neither the base's nor part of the adapter.
    assert 0.95 * stored < adapters / 3 < 1.05 * stored
    assert figures.choose_seconds > 0
    assert figures.same_seconds > 0
    assert figures.other_seconds > 0


STATE = ("weights", "gradients", "optimizer", "activations")
COUNTED = (
    "trainable_parameters",
    "total_parameters",
    "artifact_bytes",
    "training_state_bytes",
    *(f"training_state_bytes_{part}" for part in STATE),
)


@pytest.mark.parametrize("method", scaling.METHODS)
@pytest.mark.parametrize("model", ["gpt2-small", pytest.param("gpt2-xl", marks=pytest.mark.slow)])
def test_the_table_of_larger_models_has_the_counts_of_today(model: str, method: str) -> None:
    written = read_json(scaling.RESULTS)
    counted = scaling.count(model, method, scaling.Settings())
    assert {key: written["models"][model][method][key] for key in COUNTED} == {
        key: counted[key] for key in COUNTED
    }
    settings = asdict(scaling.Settings())
    assert {key: written["settings"][key] for key in settings} == settings
    assert counted["step_cpu_seconds"] is None


@pytest.mark.parametrize("method", scaling.METHODS)
def test_tensors_that_are_not_made_have_the_bytes_of_those_of_a_training(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(scaling.CONFIGS, "tiny", GPTConfig(**SHAPE))
    settings = scaling.Settings(batch_size=3, tokens=7, vocabulary=40, rank=2)
    counted = scaling.count("tiny", method, settings)
    made = scaling._train("tiny", method, settings, steps=3, warmup=1)
    assert {key: counted[key] for key in COUNTED} == {key: made[key] for key in COUNTED}
    assert made["step_cpu_seconds_low"] <= made["step_cpu_seconds"]


@pytest.mark.slow
def test_scaling_times_a_model_only_where_its_tensors_have_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaling, "available_memory_bytes", lambda device: 30_000_000)
    for name, width in (("tiny", 8), ("wide", 640)):
        shape = GPTConfig(**{**SHAPE, "context_length": 64, "n_embd": width, "vocab_size": 5000})
        monkeypatch.setitem(scaling.CONFIGS, name, shape)
    results = scaling.measure(("tiny", "wide"), steps=2, threads=1)
    seconds = [
        results["models"][name][method]["step_cpu_seconds"]
        for name in ("tiny", "wide")
        for method in scaling.METHODS
    ]
    assert all(time > 0 for time in seconds[:2])
    assert seconds[2:] == [None, None]
    assert set(results["machine"]) >= {"cpu", "threads"}


@pytest.mark.parametrize(("kind", "classes"), [("requests", 77), ("korean", 5), ("reviews", 3)])
def test_field_texts_repeat_by_seed_and_hold_every_class_alike(kind: str, classes: int) -> None:
    texts = KINDS[kind](4 * classes, 1)
    assert texts == KINDS[kind](4 * classes, 1) != KINDS[kind](4 * classes, 2)
    labels = [label for label, _ in texts]
    assert {labels.count(label) for label in labels} == {4}
    assert len(set(labels)) == classes


def test_the_nano_is_measured_on_field_texts(tmp_path: Path) -> None:
    params = parse_params(small_params(eval_examples=5))
    found = dict(nano.measure("korean", 60, params, tmp_path))
    assert found["pre-training"] > 0
    assert 2 < found["tokens"] < 60
    assert all(0 <= found[name] <= 1 for name in ("TF-IDF", "full", "lora"))
    assert list(nano.show({"korean": found}).columns[0].cells) == ["korean"]


@pytest.mark.slow
def test_a_third_of_its_pretraining_tells_most_requests_apart(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    short = PretrainingParams(steps=120, batch_tokens=1024)
    model = params.model.model_copy(update={"pretraining": short})
    params = params.model_copy(update={"model": model})
    found = dict(nano.measure("requests", 77 * 16, params, tmp_path))
    # On next tokens alone 67 and 20 %.
    assert found["full"] > 0.7
    assert found["lora"] > 0.3


def grown(point: growth.Point) -> dict[str, Any]:
    """Return what a run would take whose time is quadratic and whose memory is linear."""
    stages = growth.stage_names([f"m{i}" for i in range(point.methods)])
    each = {"seconds": 2.0, "cpu_seconds": point.messages**2 / 1e6, "peak_memory_bytes": 1e6}
    grows = {**each, "peak_memory_bytes": 1e6 * point.messages}
    return {
        "stages": {name: grows if name == "split" else each for name in stages},
        "disk_bytes": 5e6,
        "training_seconds": {f"m{i}": [0.25] * point.seeds for i in range(point.methods)},
    }


def test_the_growth_of_runs_is_fitted_drawn_and_tabulated(tmp_path: Path) -> None:
    results = growth.sweep(growth.SWEEPS, run=grown)
    laws = {(stage, figure): k for stage, figure, k in growth.laws(results["points"], "messages")}
    assert laws["split", "cpu_seconds"] == pytest.approx(2)
    assert laws["all", "peak_memory_bytes"] == pytest.approx(1)
    assert laws["all", "disk_bytes"] == pytest.approx(0)
    assert not [*growth.laws(results["points"], "workers")]
    # Two methods with 8 trainings of 0.25 s each: of 4 s, 2 stay with two workers.
    times = {point["workers"]: point["seconds"] for point in results["simulated"]}
    assert times[1] - times[2] == pytest.approx(2)
    assert times[8] == times[16]
    (tmp_path / "page.md").write_text("<!-- measurements -->\n<!-- /measurements -->\n")
    page.write_page(tmp_path / "page.md", {"pipeline-cpu": results})
    written = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "exponent of CPU seconds: the whole 2.00, `split` 2.00" in written
    assert written.count("200,000") == 1
    assert len([*(tmp_path / "images").glob("pipeline-cpu-*.svg")]) == 4


def test_a_worker_takes_the_next_task_when_it_is_free() -> None:
    assert growth.makespan([3, 1, 1, 1], 2) == 3
    assert growth.makespan([1, 1, 3], 2) == 4


@pytest.mark.slow
def test_whole_runs_are_measured(tmp_path: Path) -> None:
    arguments = ["pipeline", "--quick", "--output", str(tmp_path / "pipeline-cpu.json")]
    result = CliRunner().invoke(commands.main, arguments)
    assert result.exit_code == 0, result.output
    points = read_json(tmp_path / "pipeline-cpu.json")["points"]
    assert [point["messages"] for point in points] == [300, 600, 300]
    assert all(
        stage["cpu_seconds"] > 0.1 and stage["peak_memory_bytes"] > 20e6
        for point in points
        for stage in point["stages"].values()
    )
