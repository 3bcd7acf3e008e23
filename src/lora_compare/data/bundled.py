"""The corpus that ships with the project: SMS-like messages written by a small grammar.

The grammar stands in `bundled_data/`; this module draws from it. Of Python's generators only
`random.random()` is used, whose sequence for a seed is promised not to change, so the bytes
are the same under every Python version, hash seed, locale and platform.
"""

import re
import tomllib
from collections.abc import Iterable, Sequence
from importlib import resources
from random import Random
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

SEED = 3
ROWS = {"ham": 4827, "spam": 747}
"""Messages per class: those of the real collection."""
REPEATS = {"ham": 225, "spam": 110}
"""How many of them repeat another message of the corpus word for word."""

SHA256 = "50162dfd4bdb0a3cca860b763f47f1483390f9895ade7cd07cc0c5f802dcc03d"
"""Of the corpus as `table` returns it."""

_HOLE = re.compile(r"\{(\w+)\}|\[([^\[\]{}]*)\]|[#~]")
_WORD = re.compile(r"(?<![\w./@'-])[A-Za-z][A-Za-z']*(?![\w/@'-]|\.\w)")
_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?] ))[a-z](?![\w-]*[./:][\w/])")
_GREETED = ("Hi", "Hey", "Hello", "{parent}", "{aside}")

_CHAT_LOOSENESS = [0.0, 0.0, 0.0, 0.1, 0.2, 0.4]
_COMPANY_LOOSENESS = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.15, 0.3]


def table() -> bytes:
    """Return the corpus as the real collection's file has it: label, tab, text; quotes are data."""
    return "".join(f"{label}\t{text}\n" for label, text in messages()).encode()


def messages() -> list[tuple[str, str]]:
    """Return the 5,574 messages as (label, text), in the order of the file."""
    dice = _Dice(SEED)
    author = _Author(dice)
    rows: list[tuple[str, str]] = []
    for label, count in ROWS.items():
        texts = author.distinct(label, count - REPEATS[label])
        often = author.short if label == "ham" else texts
        again = [dice.pick(often if dice.chance(0.7) else texts) for _ in range(REPEATS[label])]
        rows.extend((label, text) for text in [*texts, *again])
    return dice.shuffled(rows)


class _Dice:
    """Choices that follow from the seed alone."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random  # noqa: S311 - no secret depends on it

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def below(self, bound: int) -> int:
        return int(self._random() * bound)

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def early(self, options: Sequence[T]) -> T:
        """Pick one, mostly of the first third."""
        return self.pick(options[: -(-len(options) // 3)] if self.chance(0.85) else options)

    def shuffled(self, items: Iterable[T]) -> list[T]:
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result


class _Topic(NamedTuple):
    """What messages of one kind are made from; the keys are explained in ham.toml."""

    templates: list[str]
    chat: bool


class _Author:
    """Writes messages: draws a topic and a template, fills it in, and spells it."""

    def __init__(self, dice: _Dice) -> None:
        self._dice = dice
        self._slots: dict[str, list[str]] = _grammar("slots")["slots"]
        self._spelling: dict[str, list[str]] = _grammar("spelling")["spelling"]
        self._seen: set[str] = set()
        self.short = _lines(_grammar("ham")["short"])

    def distinct(self, label: str, count: int) -> list[str]:
        """Return `count` texts never written before; ham begins with all the short ones."""
        texts = list(self.short) if label == "ham" else []
        self._seen.update(texts)
        deck = [
            _Topic(_lines(topic["messages"]), topic.get("chat", False))
            for topic in _grammar(label)["topics"].values()
            for _ in range(topic["weight"])
        ]
        while len(texts) < count:
            text = self._write(self._dice.pick(deck), friendly=label == "ham")
            if text not in self._seen:
                self._seen.add(text)
                texts.append(text)
        return texts

    def _write(self, topic: _Topic, friendly: bool) -> str:
        if topic.chat and friendly:
            lines = self._conversation(topic.templates)
        else:
            # Companies and crooks send the same few texts again and again.
            lines = self._dice.early(topic.templates)
        text = self._filled(self._surrounded(lines) if topic.chat else lines)
        text = _SENTENCE_START.sub(lambda start: start[0].upper(), text)
        return self._typed(text, _CHAT_LOOSENESS if topic.chat else _COMPANY_LOOSENESS)

    def _conversation(self, templates: list[str]) -> str:
        """Return a template of a friend, who at times adds a second and a third."""
        lines = self._dice.pick(templates)
        while self._dice.chance(0.1):
            stop = "." if lines[-1].isalnum() else ""
            lines = f"{lines}{stop} {self._dice.pick(templates)}"
        return lines

    def _surrounded(self, line: str) -> str:
        """Return `line` with, at times, an aside, a greeting and a closing."""
        dice = self._dice
        if dice.chance(0.15):
            line = f"{{aside}} {line}" if dice.chance(0.6) else f"{line} {{aside}}"
        if dice.chance(0.2) and not line.startswith(_GREETED):
            line = f"{{greeting}} {line}"
        if dice.chance(0.25):
            line = f"{line} {{closing}}"
        return line

    def _filled(self, text: str) -> str:
        """Return `text` with every slot, choice and digit filled in, innermost first."""
        found = 1
        while found:
            text, found = _HOLE.subn(self._fill, text)
        return " ".join(text.split())

    def _fill(self, hole: re.Match[str]) -> str:
        options: Sequence[str] = "0123456789" if hole[0] == "#" else "123456789"
        if hole[1] is not None:
            options = self._slots[hole[1]]
        elif hole[2] is not None:
            options = hole[2].split("|")
        return self._dice.pick(options)

    def _typed(self, text: str, habits: list[float]) -> str:
        """Return `text` as a thumb types it; links, numbers and codes stay as they are."""
        dice = self._dice
        looseness = dice.pick(habits)
        text = _WORD.sub(lambda word: self._spelt(word[0], looseness), text)
        if dice.chance(looseness):
            text = text.replace("'", "")
        if dice.chance(looseness):
            text = text.lower()
        if dice.chance(looseness):
            text = text.rstrip(".")
        if dice.chance(looseness / 3):
            text = re.sub(r"([,.!?]) (?=[A-Za-z])", r"\1", text, count=1)
        if dice.chance(looseness / 10):
            text = text.upper()
        return text

    def _spelt(self, word: str, looseness: float) -> str:
        dice = self._dice
        if word.lower() in self._spelling and dice.chance(looseness):
            short = dice.pick(self._spelling[word.lower()])
            return short.capitalize() if word[0].isupper() else short
        if len(word) > 4 and dice.chance(looseness / 20):
            at = 1 + dice.below(len(word) - 3)
            swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            return dice.pick([swapped, word[:at] + word[at + 1 :], word + word[-1] * 3])
        return word


def _grammar(name: str) -> dict[str, Any]:
    file = resources.files("lora_compare.data") / "bundled_data" / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _lines(block: str) -> list[str]:
    return block.strip().splitlines()
