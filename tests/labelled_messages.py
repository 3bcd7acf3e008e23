"""Made-up messages with several labels each, or none."""

import json
import random
from pathlib import Path

SAID = {
    "late": ("has not come", "is late", "still waiting"),
    "broken": ("came broken", "has a crack", "does not work"),
    "refund": ("want my money back", "please refund", "cancel and repay"),
    "praise": ("lovely people", "thank you", "great service"),
}
"""What messages with a label say."""

NOTHING = ("see you", "a question", "no reply yet", "hello there")
THINGS = ("lamp", "chair", "parcel", "phone", "grinder", "book", "pump", "kettle", "shelf", "tent")


def make_messages(n: int, seed: int = 0) -> list[tuple[list[str], str]]:
    """Return n messages as (labels, text); one in eight has no label."""
    dice = random.Random(seed)
    found = []
    for number in range(n):
        count = dice.choices((0, 1, 2, 3), (1, 3, 3, 1))[0]
        labels = sorted(dice.sample(list(SAID), count), key=list(SAID).index)
        said = [dice.choice(SAID[label]) for label in labels] or [dice.choice(NOTHING)]
        dice.shuffle(said)
        thing, other = dice.sample(THINGS, 2)
        end = f"and the {other} {n - number}"
        found.append((labels, f"the {thing} {number} {', '.join(said)}, {end}"))
    return found


def write_jsonl(path: Path, messages: list[tuple[list[str], str]]) -> None:
    """Write messages with the keys `topics`, a list, and `text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"topics": labels, "text": text}) for labels, text in messages]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
