"""A classifier of transformers without its weights: what adapters would go on."""

from pathlib import Path

import torch

from lora_compare.models.hub.folder import find_folder
from lora_compare.models.hub.network import HubClassifier
from lora_compare.models.hub.settings import CONFIG, check_settings, transformers
from lora_compare.models.hub_cache import snapshot
from lora_compare.params import ClassifierParams, ModelParams
from lora_compare.project.progress import without_warnings


def load_shape(folder: Path) -> HubClassifier:
    """Return the classifier of the config.json in a folder, on `meta`.

    Args:
        folder: A folder that `check_settings` has passed, or that of a base with its files.

    Raises:
        ParamsError: transformers is not installed.
    """
    library = transformers()
    with without_warnings("transformers"), torch.device("meta"):
        config = library.AutoConfig.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
        auto = library.AutoModelForSequenceClassification
        model = auto.from_config(config, trust_remote_code=False)
        return HubClassifier(model, ClassifierParams(position="last_token", bias=True))


def shape_at_hand(model: ModelParams, root: Path, several: bool = False) -> HubClassifier | None:
    """Return the classifier that params.yaml asks for, on `meta`; nothing is fetched.

    Args:
        model: Name and revision of a model on the hub, or of a folder.
        root: The project.
        several: Whether the data has several labels a text.

    Returns:
        None for a model on the hub that this machine has not fetched yet.

    Raises:
        ParamsError: The folder is not there, or transformers is not installed.
        CheckpointError: Its config.json is none of a classifier that can be loaded.
    """
    if model.kind == "folder":
        folder = find_folder(model.name, root)
    else:
        folder = snapshot(model.name, str(model.revision))
        if not (folder / CONFIG).is_file():
            return None
    check_settings(folder, several)
    return load_shape(folder)
