"""The corpus that ships with the project: SMS-like messages written by a small grammar.

The grammar stands in `bundled_data/`; this module draws from it. Of Python's generators only
`random.random()` is used, whose sequence for a seed is promised not to change, so the bytes
are the same under every Python version, hash seed, locale and platform.
"""

import io
import re
import tomllib
import zipfile
from collections.abc import Iterable, Sequence
from importlib import resources
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")

SEED = 5574
ROWS = {"ham": 4827, "spam": 747}
"""Messages per class: those of the real collection."""
REPEATS = {"ham": 225, "spam": 110}
"""How many of them stand word for word earlier in the corpus."""

MEMBER = "SMSSpamCollection"
ARCHIVE_SHA256 = ""
MEMBER_SHA256 = ""
README = f"""\
Messages written for lora-compare by a generator; nobody ever sent them.
{MEMBER}: label, tab, text; one message a line; UTF-8; quotes are data.
"""

_HOLE = re.compile(r"\{(\w+)\}|\[([^\[\]{}]*)\]|[#~]")
_WORD = re.compile(r"(?<![\w./@'-])[A-Za-z][A-Za-z']*(?![\w/@'-]|\.\w)")
_SENTENCE_START = re.compile(r"(?:^|(?<=[.!?] ))[a-z](?![\w-]*[./:][\w/])")

_GREETED = ("Hi", "Hey", "Hello", "{parent}", "{aside}")
_CHAT_LOOSENESS = [0.0, 0.0, 0.0, 0.1, 0.2, 0.4]
_BUSINESS_LOOSENESS = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.15, 0.3]


def archive() -> bytes:
    """Return the corpus as a zip file like the real collection's.

    Members are stored, not compressed, and carry a fixed date, so that neither the zlib at
    hand nor the clock shows in the bytes. Their SHA-256 is `ARCHIVE_SHA256`.
    """
    content = "".join(f"{label}\t{text}\n" for label, text in messages())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        for name, text in ((MEMBER, content), ("readme", README)):
            member = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            member.create_system = 3
            member.external_attr = 0o100644 << 16
            file.writestr(member, text.encode())
    return buffer.getvalue()


def messages() -> list[tuple[str, str]]:
    """Return the 5,574 messages as (label, text), in the order of the file."""
    dice = _Dice(SEED)
    author = _Author(dice)
    rows: list[tuple[str, str]] = []
    for label, count in ROWS.items():
        texts = author.distinct(label, count - REPEATS[label])
        often = author.short if label == "ham" else texts
        for _ in range(REPEATS[label]):
            texts.append(dice.early(often) if dice.chance(0.7) else dice.pick(texts))
        rows.extend((label, text) for text in texts)
    return dice.shuffled(rows)


class _Dice:
    """Choices that follow from the seed alone."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def below(self, bound: int) -> int:
        return int(self._random() * bound)

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def early(self, options: Sequence[T]) -> T:
        """Pick one, mostly among the first third."""
        return self.pick(options[: -(-len(options) // 3)] if self.chance(0.8) else options)

    def shuffled(self, items: Iterable[T]) -> list[T]:
        result = list(items)
        for last in range(len(result) - 1, 0, -1):
            other = self.below(last + 1)
            result[last], result[other] = result[other], result[last]
        return result


class _Author:
    """Writes messages: draws a topic and a template, fills it in, and spells it."""

    def __init__(self, dice: _Dice) -> None:
        self._dice = dice
        self._slots: dict[str, list[str]] = _grammar("slots")["slots"]
        self._spelling: dict[str, list[str]] = _grammar("spelling")["spelling"]
        self._topics = {label: list(_grammar(label)["topics"].values()) for label in ROWS}
        self._seen: set[str] = set()
        self.short = _lines(_grammar("ham")["short"])

    def distinct(self, label: str, count: int) -> list[str]:
        """Return `count` new texts; the ham ones begin with all the short ones."""
        texts = list(self.short) if label == "ham" else []
        self._seen.update(texts)
        deck = [
            (topic["chat"] if "chat" in topic else False, _lines(topic["messages"]))
            for topic in self._topics[label]
            for _ in range(topic["weight"])
        ]
        while len(texts) < count:
            chat, templates = self._dice.pick(deck)
            easy = chat and label == "ham"
            template = self._dice.pick(templates) if easy else self._dice.early(templates)
            while easy and self._dice.chance(0.1):
                template += " " + self._dice.pick(templates)
            text = self._write(template, chat)
            if text not in self._seen:
                self._seen.add(text)
                texts.append(text)
        return texts

    def _write(self, template: str, chat: bool) -> str:
        if chat:
            template = self._surround(template)
        text = self._filled(template)
        text = _SENTENCE_START.sub(lambda start: start[0].upper(), text)
        looseness = self._dice.pick(_CHAT_LOOSENESS if chat else _BUSINESS_LOOSENESS)
        return self._loosened(text, looseness) if looseness else text

    def _surround(self, line: str) -> str:
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
        if hole[1] is not None:
            return self._dice.pick(self._slots[hole[1]])
        if hole[2] is not None:
            return self._dice.pick(hole[2].split("|"))
        return self._dice.pick("0123456789" if hole[0] == "#" else "123456789")

    def _loosened(self, text: str, looseness: float) -> str:
        """Return `text` as a thumb types it; links, numbers and codes stay as they are."""
        dice = self._dice
        text = _WORD.sub(lambda word: self._respelled(word[0], looseness), text)
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

    def _respelled(self, word: str, looseness: float) -> str:
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
    file = resources.files(__package__) / "bundled_data" / f"{name}.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def _lines(block: str) -> list[str]:
    return block.strip().splitlines()
