"""What a training costs: the time of its steps, the bytes of its tensors."""

import time

import numpy as np
import pytest
import torch

from lora_compare.compute.device import Machine
from lora_compare.compute.optimizers import Rates
from lora_compare.training import loop
from lora_compare.training.loop import TrainingResult, train
from lora_compare.training.meters import STATE, TIMED, Meter, cost_figures
from lora_compare.training.schedule import Schedule
from unit.training.test_loop import SEED, model, settings, texts

CPU = torch.device("cpu")
MACHINE = Machine(CPU, torch.float32, 1)


def trained(method: str, **changes: object) -> TrainingResult:
    data = texts(50), texts(20, 1)
    return train(model(method), *data, settings(**changes), Rates(0.01, 0.05), SEED)


def test_the_state_of_full_fine_tuning_is_four_numbers_a_weight_and_the_activations() -> None:
    network = model("full")
    sizes = {n: 4 * p.numel() for n, p in network.named_parameters()}
    seen = np.unique(np.concatenate([*texts(50).tokens, *texts(20, 1).tokens]))
    rows = 4 * len(seen) * 16  # of the embedding, which is trained where a text needs it
    moved = sum(sizes.values()) - sizes["gpt.wte.weight"] + rows
    state = trained("full").state
    assert state is not None
    assert set(state) == set(STATE)
    assert state["gradients"] == moved
    steps = 4 * len(sizes)  # AdamW counts its steps for each tensor
    assert state["optimizer"] == 2 * moved + steps
    place = 8 * 40  # where in the smaller embedding a token's row is
    assert state["weights"] == sum(sizes.values()) + rows + place
    assert state["activations"] > 30_000


def test_lora_holds_every_weight_and_moves_few() -> None:
    network = model("lora")
    sizes = [4 * p.numel() for p in network.parameters()]
    moved = [4 * p.numel() for p in network.parameters() if p.requires_grad]
    state = trained("lora").state
    assert state is not None
    buffers = sum(b.nbytes for b in network.buffers())
    assert state["weights"] == sum(sizes) + buffers
    assert state["gradients"] == sum(moved)
    assert state["optimizer"] == 2 * sum(moved) + 4 * len(moved)


@pytest.mark.parametrize("changes", [{}, {"gradient_accumulation_steps": 3}, {"drop_last": True}])
def test_tensors_are_counted_in_the_step_of_most_tokens(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule, data = Schedule(settings(**changes), 50, SEED), texts(50)
    groups = list(schedule.batches())[: schedule.steps_per_epoch]
    most = [max(int(data.lengths[chosen].sum()) for chosen in group) for group in groups]
    longest = schedule.longest_step(data.lengths)
    assert most[longest] == max(most)
    kept = []
    original = loop.optimizer_step

    def step(*arguments: object) -> torch.Tensor:
        kept.append(len(torch._C._autograd._top_saved_tensors_default_hooks(False) or ()) > 0)
        return original(*arguments)

    monkeypatch.setattr(loop, "optimizer_step", step)
    trained("full", **changes)
    assert [i for i, hooked in enumerate(kept) if hooked] == [longest]


def test_bfloat16_counts_the_masters_and_the_gradients_as_they_are() -> None:
    states = []
    for dtype in (torch.float32, torch.bfloat16):
        data = texts(50), texts(20, 1)
        result = train(model("full"), *data, settings(), Rates(0.01, 0.05), SEED, dtype)
        assert result.state is not None
        states.append(result.state)
    plain, lower = states
    linear = 2 * (4 * 16 * 16 + 2 * 16 * 64)  # weights of Linear layers but the head
    assert lower["weights"] == plain["weights"] + 2 * linear
    assert lower["gradients"] == plain["gradients"] - 2 * linear
    assert lower["optimizer"] == plain["optimizer"]


def test_a_step_takes_the_time_that_the_process_computes_and_not_the_time_it_waits() -> None:
    meter = Meter(model(), torch.optim.SGD(model().parameters()), longest=-1)
    with meter.step(0):
        time.sleep(0.2)
    with meter.step(1):
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
    waited, computed = meter.seconds
    assert waited < 0.1
    assert computed == pytest.approx(0.05, abs=0.03)


def test_on_a_gpu_every_tenth_step_is_timed_on_the_wall(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    network = model()
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda"))
    meter = Meter(network, torch.optim.SGD(network.parameters()), longest=-1)
    monkeypatch.undo()
    for step in range(2 * TIMED + 1):
        with meter.step(step):
            time.sleep(0.001)
    assert len(meter.seconds) == 3
    assert min(meter.seconds) >= 0.001


def test_the_cost_names_median_quartiles_and_the_parts_of_the_state() -> None:
    state = dict(zip(STATE, (100, 20, 40, 7), strict=True))
    cost = cost_figures(10.0, 800, 9000, MACHINE, [0.4, 0.1, 0.2, 0.3, 0.5], state, 2)
    assert cost["step_cpu_seconds"] == 0.3
    assert (cost["step_cpu_seconds_low"], cost["step_cpu_seconds_high"]) == (0.2, 0.4)
    assert cost["training_state_bytes"] == 167
    assert {p: cost[f"training_state_bytes_{p}"] for p in STATE} == state
    assert cost["side_by_side"] == 2


def test_every_step_is_timed_and_of_a_training_without_a_step_nothing_is_known() -> None:
    cost = cost_figures(0.0, 0, 0, MACHINE)
    unknown = {k for k, value in cost.items() if value is None}
    assert {"training_state_bytes", "step_cpu_seconds", "side_by_side"} <= unknown
    assert len(trained("full").steps) == trained("full").history[-1].step


def test_the_measured_step_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, plain = model("lora"), model("lora")
    data = texts(50), texts(20, 1)
    train(measured, *data, settings(), Rates(0.01, 0.05), SEED)
    monkeypatch.setattr(Schedule, "longest_step", lambda *_: -1)
    assert train(plain, *data, settings(), Rates(0.01, 0.05), SEED).state == {}
    for a, b in zip(measured.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
