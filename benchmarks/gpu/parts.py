"""What is measured on a GPU, in the order of its worth, each part in a process of its own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["tests", "training", "steps", "llama"]


@dataclass(frozen=True)
class Part:
    """One process's work.

    Attributes:
        kind: What it does: the module of this package, `llama` one of `steps`.
        settings: Its settings, plain JSON values.
        seconds: The time that it may take.
    """

    kind: Kind
    settings: Mapping[str, Any]
    seconds: int

    @property
    def name(self) -> str:
        """What the part is called in results, such as `steps gpt2-xl`."""
        return " ".join([self.kind, *(str(v) for k, v in self.settings.items() if k in SHOWN)])


METHODS = ("lora", "full")

SHOWN = ("model", "method")
"""The settings that tell parts of one kind from each other."""


def parts(tiny: bool) -> list[Part]:
    """Return all parts, at sizes that a GPU is for or that a CPU does in a minute.

    Args:
        tiny: Whether the sizes are a CPU's.
    """
    if tiny:
        return [
            Part("tests", {"chosen": "full or same_bytes"}, 300),
            *(_training("gpt2-nano", method, 1, seconds=300, messages=40) for method in METHODS),
            _steps("gpt2-nano", seconds=300, steps=1),
            Part("llama", {"model": "llama-tiny", "steps": 1}, 300),
        ]
    return [
        Part("tests", {"chosen": ""}, 110),
        *(_training("gpt2-small", method, 5, seconds=60) for method in METHODS),
        _training("gpt2-xl", "lora", 5, seconds=100, more=False),
        _steps("gpt2-small", seconds=50),
        _steps("gpt2-xl", seconds=90, steps=6),
        Part("llama", {"model": "llama-1b", "steps": 6}, 60),
        _steps("gpt2-medium", seconds=60, steps=6),
        _steps("gpt2-large", seconds=70, steps=6),
    ]


def _training(
    model: str,
    method: str,
    epochs: int,
    seconds: int,
    messages: int | None = None,
    more: bool = True,
) -> Part:
    chosen = {"model": model, "method": method, "epochs": epochs}
    return Part("training", {**chosen, "messages": messages, "more": more}, seconds)


def _steps(model: str, seconds: int, steps: int = 10) -> Part:
    return Part("steps", {"model": model, "steps": steps}, seconds)
