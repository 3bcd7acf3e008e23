"""Messages of customers over a year: who writes much, of what, when."""

from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from lora_compare.project.corpus import make_corpus

CLASSES = ("delivery", "invoice", "login")


def make_customers(
    customers: int = 120, seed: int = 0, days: float = 20.0, classes: tuple[str, ...] = CLASSES
) -> pd.DataFrame:
    """Return a corpus with groups and times: most customers write once, a few often.

    Args:
        customers: How many there are.
        seed: Where the choices come from.
        days: Over how many a customer writes, about.
        classes: The first is the most frequent; a customer writes mostly of one.
    """
    random = np.random.RandomState(seed)
    shares = 0.5 ** np.arange(len(classes))
    rows = []
    for customer in range(customers):
        mostly = random.choice(len(classes), p=shares / shares.sum())
        start = random.uniform(0, 365)
        for _ in range(min(30, 1 + int(random.pareto(1.0)))):
            kind = mostly if random.rand() < 0.8 else random.randint(len(classes))
            day = datetime(2025, 1, 1) + timedelta(days=start + random.uniform(0, days))
            rows.append((classes[kind], f"c{customer}", day.replace(microsecond=0).isoformat()))
    order = random.permutation(len(rows))
    labels, groups, times = ([rows[i][column] for i in order] for column in range(3))
    words = [f"{random.bytes(9).hex()} {random.bytes(9).hex()}" for _ in rows]
    return make_corpus(labels, words, group=groups, time=times)
