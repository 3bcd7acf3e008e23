"""Any number of labelled messages like the bundled ones, made on the spot for trials of size."""

from collections.abc import Iterator

import numpy as np

from lora_compare.data.bundled import messages

COPIES = 0.1
"""Share of messages that repeat an earlier one but for a word."""

REPLACED = 0.5
"""Share of a bundled message's words for which others are drawn."""

TAIL = 1.3
"""Exponent of the words' Zipf distribution: n messages have about n^0.77 different words."""

SYLLABLES = [first + last for first in "bdfgklmnprstvz" for last in "aeiou"]


def generate(n: int, classes: int = 2, seed: int = 1) -> Iterator[tuple[str, str]]:
    """Yield `n` messages as (label, text), the same for the same arguments.

    Each is a bundled message with half of its words replaced by invented ones, which grow in
    number with the messages as words of a language do (Zipf, Heaps). One of ten is a copy with a
    word changed. A message of many classes holds the name of its own.

    Args:
        n: Number of messages.
        classes: 2 for ham and spam as they are bundled; else about equally many of each.
        seed: Of the choices.
    """
    random = np.random.RandomState(seed)
    bundled = [(label, text.split()) for label, text in messages()]
    written: list[tuple[str, list[str]]] = []
    for number in range(n):
        if written and random.random_sample() < COPIES:
            label, words = written[random.randint(len(written))]
            words = list(words)
            words[random.randint(len(words))] = _word(int(random.zipf(TAIL)))
        else:
            label, words = bundled[random.randint(len(bundled))]
            drawn = random.random_sample(len(words)) < REPLACED
            others = random.zipf(TAIL, len(words)).tolist()
            words = [
                _word(other) if new else word
                for word, new, other in zip(words, drawn, others, strict=True)
            ]
            if classes > 2:
                label = _word(number % classes + 10**6)
                words.append(label)
        written.append((label, words))
        yield label, " ".join(words)


def _word(number: int) -> str:
    """Return the word of a rank, rarer ones longer: its digits as syllables."""
    word = ""
    while True:
        number, digit = divmod(number, len(SYLLABLES))
        word += SYLLABLES[digit]
        if not number:
            return word
