"""What a model was made from: inputs, code, settings, versions, machine."""

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lora_compare import __version__
from lora_compare.params import Params
from lora_compare.project.checksums import digest
from lora_compare.project.files import sha256_of
from lora_compare.project.lineage import Pipeline
from lora_compare.project.paths import Paths

ENVIRONMENT = ("device", "platform", "versions")
"""What of a provenance tells about the machine, and not about the work."""


def provenance(
    paths: Paths,
    params: Params,
    stage: str,
    inputs: Mapping[str, Iterable[Path]],
    machine: Mapping[str, Any],
    method: str | None = None,
) -> dict[str, Any]:
    """Return the content of provenance.json of the model that a stage is about to make.

    It holds no time, no absolute path and no name of a run: the same stage on the same machine
    writes the same bytes again. Code (by DVC's MD5, as in dvc.lock) and command are those of
    dvc.yaml, empty where there is none.

    Args:
        paths: The project.
        params: Its parameters.
        stage: The stage of dvc.yaml.
        inputs: What the model is made from: sealed files and folders by the stage that made them.
        machine: What it is computed with, as `Machine.describe` returns it.
        method: The method, for a stage that runs once per method.

    Raises:
        MissingArtifactError: An input is missing.
        IntegrityError: An input has no checksum.
    """
    pipeline = Pipeline(paths, params)
    settings = pipeline.settings(stage, method)
    sums = {path: digest(path, maker) for maker, made in inputs.items() for path in made}
    cuda = {"cuda": machine["cuda"]} if machine["cuda"] else {}
    return {
        "stage": f"{stage}@{method}" if method else stage,
        "command": pipeline.command(stage, method),
        "inputs": {path.relative_to(paths.root).as_posix(): known for path, known in sums.items()},
        "code": pipeline.code(stage, method),
        "params": {"keys": list(settings), "sha256": sha256_of(settings)},
        "versions": versions(*TRAINING) | cuda,
        "platform": {
            "system": platform.system(),
            "machine": platform.machine(),
            "cpu_capability": machine["cpu_capability"],
        },
        "device": machine["device"],
        "threads": machine["threads"],
    }


TRAINING = ("torch", "numpy", "tiktoken", "safetensors")
"""What computes and stores a model."""

EVALUATION = ("torch", "numpy")
"""What computes the figures of an evaluation."""


def versions(*libraries: str) -> dict[str, str]:
    """Return the versions of this project, of Python and of installed `libraries`."""
    found = {"lora-compare": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in libraries}
