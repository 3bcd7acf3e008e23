"""Compare LoRA with full fine-tuning on one's own labelled text."""

from importlib.metadata import version

__version__ = version("lora-compare")
