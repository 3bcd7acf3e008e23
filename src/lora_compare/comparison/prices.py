"""What a method costs: the columns that every table of prices has, and how they are written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lora_compare.comparison import formats

NO_SAVING = 0.95
"""Share of full's step time from which on LoRA is said to save no time.

The same work differs by some per cent from one run to the next (docs/performance.md).
"""


@dataclass(frozen=True)
class Price:
    """One price of a method.

    Attributes:
        key: Its key in a record of metrics/comparison.json.
        title: What it is called.
        ratio: Key of LoRA's share of full's in `reference`.
        write: Returns the number as people read it.
    """

    key: str
    title: str
    ratio: str
    write: Callable[[float | None], str]

    def of(self, record: Mapping[str, Any]) -> float | None:
        """Return what a method paid; None of what is not known.

        A time of 0 s is that of an imported adapter, but a method may well train 0 parameters.
        """
        value: float | None = record.get(self.key)
        return value if value or self.key == "trainable_parameters" else None

    def text(self, record: Mapping[str, Any]) -> str:
        """Return what a method paid as people read it, with its quartiles if it has any."""
        value, low, high = (
            self.of(record),
            *(record.get(f"{self.key}_{e}") for e in ("low", "high")),
        )
        if value is None or low is None or high is None:
            return self.write(value)
        low, high = (formats.in_unit_of(end, value) for end in (low, high))
        return f"{self.write(value)} ({low}{formats.DASH}{high})"


PRICES = (
    Price("trainable_parameters", "trainable parameters", "parameter_ratio", formats.count),
    Price("training_state_bytes", "training state", "state_ratio", formats.size),
    Price("step_cpu_seconds", "step time", "step_ratio", formats.short_time),
    Price("artifact_bytes", "artifact size", "artifact_ratio", formats.size),
)
"""Every price that methods are compared by, in the order of the columns."""

OF_THE_MACHINE = (
    Price("train_seconds", "training time", "time_ratio", formats.duration),
    Price("peak_memory_bytes", "memory of the process", "memory_ratio", formats.size),
)
"""What a training took of the machine, with libraries and whatever else ran there."""

LATENCIES = tuple(f"classify_{n}{merged}_ms" for merged in ("", "_merged") for n in (1, 64))
"""Milliseconds a message that classifying takes, by the messages given at once: adapter beside its
base, then merged."""

TIMES = ("time_ratio", "step_ratio")
"""Ratios of times, which compare nothing where they were not taken alike."""

OF_FULL = "of full"
"""Heading of a method's share of the parameters that full fine-tuning trains."""


def accuracy(record: Mapping[str, Any], between: str = " ") -> str:
    """Return a record's test accuracy with its 95 % interval, such as `97.6 % (95.2-98.9)`."""
    interval = formats.percent_interval((record["test_accuracy_low"], record["test_accuracy_high"]))
    return f"{formats.percent(record['test_accuracy'])}{between}({interval})"


def cells(record: Mapping[str, Any]) -> dict[str, str]:
    """Return what a method or baseline costs by heading: each price, and the share of full.

    Args:
        record: One of `methods` or `baselines` of metrics/comparison.json.
    """
    written = {price.title: price.text(record) for price in PRICES}
    (first, value), *rest = written.items()
    return {first: value, OF_FULL: formats.share(record.get("parameters_of_full")), **dict(rest)}


def machine(cost: Mapping[str, Any]) -> str:
    """Return what a training ran on in a few words: equal for two whose times may be compared.

    Args:
        cost: A method's cost.json; `environment`, if there is one, tells the machine.
    """
    environment = cost.get("environment", {})
    facts = [
        environment.get("device", cost.get("device")),
        cost.get("processor"),
        *environment.get("platform", {}).values(),
        cost.get("dtype"),
        f"{cost.get('threads')} threads",
    ]
    return ", ".join(str(fact) for fact in facts if fact is not None)


def ratios(lora: Mapping[str, Any], full: Mapping[str, Any]) -> dict[str, float | None]:
    """Return LoRA's share of each price of full fine-tuning, None where there is none.

    Times of different machines have no ratio, nor those where one training had more company than
    the other; a time on the wall that was taken beside other trainings has none either.

    Args:
        lora: LoRA's record of metrics/comparison.json.
        full: That of full fine-tuning.
    """
    return {
        price.ratio: _share(price.of(lora), price.of(full))
        if comparable(price, lora, full)
        else None
        for price in (*PRICES, *OF_THE_MACHINE)
    }


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def comparable(price: Price, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two methods paid the same kind of price: times only on the same machine."""
    if price.ratio not in TIMES:
        return True
    if any(one.get(key) != other.get(key) for key in ("machine", "side_by_side")):
        return False
    return price.ratio == "step_ratio" or one.get("side_by_side") in (None, 1)


def price_sentence(comparison: Mapping[str, Any]) -> str:
    """Return what LoRA costs beside full fine-tuning, and where it saves no time.

    Args:
        comparison: The content of metrics/comparison.json; without both, there is nothing to say.
    """
    reference = comparison["reference"]
    if reference is None:
        return ""
    shares = [
        f"{formats.share(ratio)} of the {price.title}"
        for price in PRICES
        if (ratio := reference.get(price.ratio)) is not None
    ]
    needs = f"{reference['lora']} needs, of {reference['full']}: {', '.join(shares)}."
    step = reference.get("step_ratio")
    return f"{needs} It saves no time." if step is not None and step >= NO_SAVING else needs


def footnote(comparison: Mapping[str, Any]) -> str:
    """Return what is no price of a method alone: times on the wall, memory of whole processes.

    Args:
        comparison: The content of metrics/comparison.json; nothing where no method was trained.
    """
    trained = [r for r in comparison["methods"] if OF_THE_MACHINE[0].of(r) is not None]
    if not trained:
        return ""
    taken = "; ".join(
        f"{record['method']} {', '.join(price.text(record) for price in OF_THE_MACHINE)}"
        for record in trained
    )
    kinds = {"CPU" if record.get("device") == "cpu" else "GPU" for record in trained}
    return (
        "Training state: bytes of weights, gradients, optimizer and activations. Step time: "
        f"{' or '.join(sorted(kinds))} time, median (quartiles){_company(trained)}. All steps by "
        f"the clock, and the memory of the whole process: {taken}.{_latency(trained)}"
    )


def _latency(trained: list[Mapping[str, Any]]) -> str:
    """Return what classifying a message takes by each method, one by one and 64 at once."""
    told = []
    for record in trained:
        beside, merged = (
            [record.get(name) for name in names] for names in (LATENCIES[:2], LATENCIES[2:])
        )
        if None not in beside:
            also = f", merged {_two(merged)}" if None not in merged else ""
            told.append(f"{record['method']} {_two(beside)}{also}")
    if not told:
        return ""
    return f" To classify a message, alone and of 64 at once, by the clock: {'; '.join(told)} ms."


def _two(milliseconds: list[Any]) -> str:
    return " and ".join(f"{value:.3g}" for value in milliseconds)


def _company(trained: list[Mapping[str, Any]]) -> str:
    """Return in which company times were taken, where that matters."""
    most = max(record.get("side_by_side") or 1 for record in trained)
    machines = {record.get("machine") for record in trained}
    beside = f", {most} trainings at a time" if most > 1 else ""
    apart = ", on different machines: not compared" if len(machines) > 1 else ""
    return beside + apart
