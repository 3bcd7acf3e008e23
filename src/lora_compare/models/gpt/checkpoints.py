"""GPT-2's checkpoints on the Hugging Face hub: fetched once, verified on every use."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_compare.models import hub_cache
from lora_compare.models.hub_cache import HubFile
from lora_compare.project.progress import SILENT, Progress

FILE = "model.safetensors"
"""Name of the weights in a checkpoint's repository."""


@dataclass(frozen=True)
class Checkpoint:
    """A file of pretrained weights on the Hugging Face hub.

    Attributes:
        repository: The hub's name of the model.
        revision: Commit that the file is taken from.
        size: Bytes, where recorded.
        sha256: Checksum; where none is recorded, the hub's own for this commit counts.
    """

    repository: str
    revision: str
    size: int | None
    sha256: str | None

    def file(self, title: str) -> HubFile:
        """Return it as a file of the hub that messages call `title`."""
        otherwise = "set model.weights to random or model.name to gpt2-nano in params.yaml"
        facts = (self.repository, self.revision, FILE, title, self.size, self.sha256)
        return HubFile(*facts, otherwise)


CHECKPOINTS = {
    "gpt2-small": Checkpoint(
        "openai-community/gpt2",
        "607a30d783dfa663caf39e06633721c8d4cfcd7e",
        548_105_171,
        "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707",
    ),
    "gpt2-medium": Checkpoint(
        "openai-community/gpt2-medium",
        "6dcaa7a952f72f9298047fd5137cd6e4f05f41da",
        1_519_984_962,
        "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd",
    ),
    "gpt2-large": Checkpoint(
        "openai-community/gpt2-large", "32b71b12589c2f8d625668d2335a01cac3249519", None, None
    ),
    "gpt2-xl": Checkpoint(
        "openai-community/gpt2-xl",
        "15ea56dee5df4983c59b2538573817e1667135e2",
        None,
        "0f8b28eb05a8075f48b61b6f35332978c74fc7763fa9fb4051a1c30511736a6a",
    ),
}
"""OpenAI's weights by the model's name in params.yaml."""


@dataclass(frozen=True)
class FetchedCheckpoint:
    """A verified file of pretrained weights on this machine.

    Attributes:
        path: The file in the hub's cache.
        provenance: What it is, for the records: repository, revision, file, bytes, sha256.
    """

    path: Path
    provenance: dict[str, Any]


def fetch_checkpoint(name: str, progress: Progress = SILENT) -> FetchedCheckpoint:
    """Return the verified file of a checkpoint, downloading it where needed.

    Args:
        name: A key of `CHECKPOINTS`.
        progress: Where a download is reported, in megabytes.

    Raises:
        DownloadError: As `hub_cache.fetch_file`.
        StorageError: As `hub_cache.fetch_file`.
    """
    file = CHECKPOINTS[name].file(name)
    fetched = hub_cache.fetch_file(file, progress)
    source = {"repository": file.repository, "revision": file.revision, "file": FILE}
    return FetchedCheckpoint(fetched.path, {**source, **fetched.facts})


def cached_path(checkpoint: Checkpoint) -> Path:
    """Return where the hub's cache has, or would have, the file of `checkpoint`."""
    return hub_cache.cached_path(checkpoint.file(FILE))
