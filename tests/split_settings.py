"""Settings of a split for tests: the default, and what a test changes of it."""

from lora_compare.params import SplitParams


def split_settings(**changes: object) -> SplitParams:
    """Return the settings of a split, by default those of params.yaml."""
    plain = {
        "deduplicate": "exact",
        "balance": "undersample",
        "train": 0.7,
        "validation": 0.1,
        "seed": 123,
    }
    return SplitParams(**{**plain, **changes})
