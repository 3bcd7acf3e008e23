"""Adapters for tests: plain LoRA on every Linear layer, and what a test changes of it."""

from lora_compare.params import LoraParams


def lora_settings(r: int = 2, lora_alpha: float = 4, **changes: object) -> LoraParams:
    """Return the settings of an adapter, by default plain LoRA on all Linear layers."""
    plain = {"lora_dropout": 0.0, "target_modules": "all-linear", "bias": "none"}
    return LoraParams(r=r, lora_alpha=lora_alpha, **{**plain, **changes})
