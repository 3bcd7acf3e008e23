"""Which versions computed something."""

import platform
from importlib.metadata import version

from lora_compare import __version__

TRAINING = ("torch", "numpy", "tiktoken", "safetensors")
"""What computes and stores a model."""

EVALUATION = ("torch", "numpy", "scikit-learn", "scipy", "statsmodels")
"""What computes the figures of an evaluation."""


def versions(*libraries: str) -> dict[str, str]:
    """Return the versions of this project, of Python and of installed `libraries`."""
    found = {"lora-compare": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in libraries}
