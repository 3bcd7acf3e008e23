"""A training that goes on from a checkpoint is bit for bit the one that was not cut off."""

import shutil
from collections.abc import Callable, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lora_compare
from lora_compare.compute.optimizers import Rates
from lora_compare.lora import inject
from lora_compare.models.gpt.network import Classifier
from lora_compare.training import loop
from lora_compare.training.history import TrainingResult
from lora_compare.training.loop import train
from lora_compare.training.resume import SHARE, Checkpoints, code_digest
from lora_settings import lora_settings
from unit.training.test_loop import SEED, model, settings, texts

FACTS = {"training": {"batch_size": 8}, "torch": "2"}


class CutOffError(Exception):
    """Stands for the end of a process."""


class Announced:
    """Collects what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def classifier(method: str) -> Classifier:
    if method == "lora":
        return model(method)
    found = model("full")
    if method != "dropout":
        return found
    inject(found, lora_settings(r=4, lora_dropout=0.3))
    return found


def run(
    method: str, checkpoints: Checkpoints | None = None, **changes: object
) -> tuple[Classifier, TrainingResult]:
    found = classifier(method)
    torch.manual_seed(7)  # of dropout
    ratio = 4.0 if method in ("lora", "dropout") else None
    dtype = torch.bfloat16 if method == "bfloat16" else torch.float32
    rates = Rates(0.01, 0.05, ratio)
    data, training = (texts(50), texts(20, 1)), settings(**changes)
    return found, train(found, *data, training, rates, SEED, dtype, checkpoints=checkpoints)


@cache
def undisturbed() -> TrainingResult:
    """What every test of a checkpoint that is not used has to arrive at."""
    return run("lora")[1]


def cut_off_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [steps]
    original = loop.optimizer_step

    def step(*arguments: Any) -> Tensor:
        if not left[0]:
            raise CutOffError
        left[0] -= 1
        return original(*arguments)

    monkeypatch.setattr(loop, "optimizer_step", step)


BEST = {"keep": "best", "eval_every": 2}
"""Of `full`, the best evaluation is that after step 4."""

PATIENT = {**BEST, "patience": 5}
"""Ends `full` after step 12."""

ACCUMULATED = {"lr_scheduler": "cosine", "warmup_ratio": 0.3, "gradient_accumulation_steps": 3}


@pytest.mark.parametrize(
    ("method", "steps", "changes"),
    [
        ("full", 1, {}),
        ("full", 7, {}),  # the last step of an epoch
        ("lora", 12, {}),  # after an evaluation
        ("dropout", 20, {}),
        ("bfloat16", 5, {}),
        ("lora", 2, ACCUMULATED),
        ("dropout", 4, ACCUMULATED),
        ("bfloat16", 8, ACCUMULATED),
        *((method, steps, BEST) for method in ("full", "bfloat16") for steps in (3, 11, 20)),
        ("lora", 17, BEST | {"class_weights": "balanced"}),
        *(("full", steps, PATIENT) for steps in (5, 9)),
    ],
)
def test_going_on_equals_never_having_stopped(
    method: str,
    steps: int,
    changes: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, expected = run(method, **changes)
    file = tmp_path / "state.safetensors"
    assert steps < expected.history[-1].step
    with monkeypatch.context() as patch:
        cut_off_after(steps, patch)
        with pytest.raises(CutOffError):
            run(method, Checkpoints(file, FACTS, 0), **changes)
    torch.rand(100)  # another place in the generator's sequence
    resumed, found = run(method, Checkpoints(file, FACTS, None), **changes)
    assert found.history == expected.history
    assert (found.examples, found.tokens) == (expected.examples, expected.tokens)
    for (name, mine), theirs in zip(
        resumed.state_dict().items(), whole.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs), name


@pytest.mark.parametrize("changes", [{}, PATIENT])
def test_a_finished_training_is_taken_over_as_it_is(
    changes: dict[str, object], tmp_path: Path
) -> None:
    file = tmp_path / "state.safetensors"
    whole, expected = run("full", Checkpoints(file, FACTS, 0), **changes)
    again, found = run("full", Checkpoints(file, FACTS, 0), **changes)
    assert found.history == expected.history
    assert found.history[-1].step == (12 if changes else 21)
    assert (found.examples, found.tokens) == (expected.examples, expected.tokens)
    for mine, theirs in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (
            {"training": {"batch_size": 16}, "torch": "2"},
            "training.batch_size was 8, is 16",
        ),
        ({"training": {"batch_size": 8}, "torch": "3"}, "torch was 2, is 3"),
        ({"training": {"batch_size": 8}}, "torch was 2, is None"),
    ],
)
def test_a_checkpoint_of_other_facts_is_not_used(
    facts: Mapping[str, Any], said: str, tmp_path: Path
) -> None:
    file = tmp_path / "state.safetensors"
    run("lora", Checkpoints(file, FACTS, 0), epochs=1)
    announced = Announced()
    _, found = run("lora", Checkpoints(file, facts, None, announced))
    assert announced.said == [f"the checkpoint of step 7 is not used: {said}"]
    assert found.history == undisturbed().history


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-100], lambda content: b"<html>", lambda content: b""],
    ids=["short", "html", "empty"],
)
def test_a_damaged_checkpoint_is_not_used(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    run("lora", Checkpoints(file, FACTS, 0), epochs=1)
    file.write_bytes(damage(file.read_bytes()))
    announced = Announced()
    _, found = run("lora", Checkpoints(file, FACTS, None, announced))
    assert "is damaged and not used" in announced.said[0]
    assert found.history == undisturbed().history


def test_weights_that_are_no_numbers_are_not_kept(tmp_path: Path) -> None:
    class Ruined:
        step = 3

        def tensors(self) -> dict[str, Tensor]:
            return {"parameter.weight": torch.tensor([1.0, float("nan")])}

        def figures(self) -> dict[str, Any]:
            return {}

    file = tmp_path / "state.safetensors"
    Checkpoints(file, FACTS, 0).after_step(Ruined())
    assert not file.exists()


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    remains = tmp_path / ".state.safetensors.1a2b.tmp"
    remains.write_bytes(b"half")
    run("lora", Checkpoints(tmp_path / "state.safetensors", FACTS, None), epochs=1)
    assert list(tmp_path.iterdir()) == []


def test_writing_takes_a_small_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("lora_compare.training.resume.time.monotonic", lambda: now[0])
    checkpoints = Checkpoints(tmp_path / "state.safetensors", FACTS, 10)
    written = []

    class Slow:
        step = 1

        def tensors(self) -> dict[str, Tensor]:
            written.append(now[0])
            now[0] += 2  # seconds that writing takes
            return {}

        def figures(self) -> dict[str, Any]:
            return {}

    for _ in range(400):
        now[0] += 1
        checkpoints.after_step(Slow())
    assert written[0] == 10
    gaps = {b - a for a, b in pairwise(written)}
    assert gaps == {2 + 2 * SHARE}


@pytest.mark.parametrize(
    ("module", "voids"),
    [
        ("training/loop.py", True),
        ("compute/optimizers.py", True),
        ("lora/layer.py", True),
        ("report/page.py", False),
        ("tracking/records.py", False),
        ("errors.py", False),
    ],
)
def test_only_code_that_can_change_the_bits_voids_a_checkpoint(
    module: str, voids: bool, tmp_path: Path
) -> None:
    package = shutil.copytree(Path(lora_compare.__file__).parent, tmp_path / "package")
    before = code_digest(package)
    assert before == code_digest(Path(lora_compare.__file__).parent)
    with (package / module).open("a") as file:
        file.write("# edited\n")
    assert (code_digest(package) != before) is voids


def test_code_that_moves_to_another_module_voids_a_checkpoint(tmp_path: Path) -> None:
    package = shutil.copytree(Path(lora_compare.__file__).parent, tmp_path / "package")
    before = code_digest(package)
    (package / "training" / "loop.py").rename(package / "compute" / "loop.py")
    assert code_digest(package) != before
