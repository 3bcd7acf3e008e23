"""A model of transformers before any fine-tuning: made from its files once, then read."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_compare.compute.seeding import seeded
from lora_compare.errors import CheckpointError, ParamsError
from lora_compare.models.batches import Examples, collate
from lora_compare.models.hub.fetching import fetch
from lora_compare.models.hub.folder import check_folder, digests, find_folder
from lora_compare.models.hub.loading import load_network, load_tokenizer, of_transformers
from lora_compare.models.hub.network import HubClassifier, head_names
from lora_compare.models.hub.settings import OTHER_MODEL, transformers
from lora_compare.models.hub.tokenizer import HubTokenizer, choose_pad, wrap
from lora_compare.models.network import Base
from lora_compare.models.weights import assign, load_any_state, load_state, save_state
from lora_compare.params import ClassifierParams, ModelParams
from lora_compare.project.checksums import verified, verified_part
from lora_compare.project.progress import Progress, without_warnings

FILES = "transformers"
"""The folder in that of the base with config.json and tokenizer as transformers writes them."""

HEAD = "head.safetensors"
"""The file there with what the head starts with, if anything."""

UNLIMITED = 10**9
"""Tokens from which on a tokenizer's `model_max_length` says that it knows no limit."""

TRIAL = ("a", "one text after another, of unequal length")
"""Texts that are classified alone and together, to see whether padding changes an answer."""

TOLERANCE = 1e-3
"""Largest difference of a logit, relative to the largest, that is taken for rounding."""


@dataclass(frozen=True)
class HubBase(Base):
    """A network of transformers below its head, with its tokenizer.

    Its description also has architecture, model_type, the tensors that its files lack, which are
    random, and the tokens that pad texts and go around them; its source the sha256 of every file
    and, of a model on the hub, repository and revision.

    Attributes:
        config: transformers' config of the network, with the token that pads.
        head: What its files hold of a head below the last layer, as ModernBERT's do.
    """

    network: Any
    tokenizer: HubTokenizer
    description: dict[str, Any]
    config: Any
    head: Mapping[str, Tensor]
    kind = "hub"

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return int(self.config.get_text_config().hidden_size)

    @property
    def context(self) -> int:
        """Longest text in tokens."""
        return int(self.description["context"])

    @property
    def remarks(self) -> list[str]:
        """What it is, and what pads its texts."""
        known = self.description
        return [
            f"{known['architecture']}, width {self.width}, texts of up to {self.context:,} tokens, "
            f"padded with {known['pad_token']!r}",
            *([f"its head starts with {', '.join(self.head)} of the files"] if self.head else []),
        ]

    def new_classifier(self, n_classes: int, head: ClassifierParams, seed: int) -> HubClassifier:
        """Return a classifier of the network, which is used and not copied, under a new head.

        The head is that of the architecture, initialised as transformers does it; its last layer
        is always new.

        Raises:
            ParamsError: Another head than the architecture's is asked for.
        """
        if head.position != "last_token" or not head.bias:
            raise ParamsError(
                "A model of transformers has the head of its architecture.",
                where="params.yaml: classifier",
                expected="position: last_token and bias: true, by which the architecture decides",
                actual=f"position: {head.position} and bias: {str(head.bias).lower()}",
                next="set classifier.position: last_token and classifier.bias: true",
            )
        config = copy.deepcopy(self.config)
        config.num_labels = n_classes
        # Nothing is generated, so keys and values of earlier tokens are of no use.
        config.use_cache = self.network.config.use_cache = False
        with torch.device("meta"):
            model = _classifier_of(config)
        setattr(model, model.base_model_prefix, self.network)
        with seeded(seed):
            _initialise_head(model)
        model.load_state_dict(self.head, strict=False)
        return HubClassifier(model.train(), head)

    def state(self) -> Mapping[str, Tensor]:
        """Return the network's tensors by name, those that stand under several names once."""
        return _tensors(self.network)

    def save_tokenizer(self, folder: Path) -> None:
        """Write config.json and tokenizer as transformers does, and what the head starts with."""
        if self.head:
            save_state(folder / FILES / HEAD, self.head)
        with without_warnings("transformers"):
            self.config.save_pretrained(folder / FILES)
            self.tokenizer.fast.save_pretrained(folder / FILES)


def make_hub(model: ModelParams, root: Path, progress: Progress, several: bool = False) -> HubBase:
    """Return the model of transformers that params.yaml asks for, on the CPU, in float32.

    Args:
        model: Name, weights and seed: of random weights, and of a pooler that the files lack.
        root: The project.
        progress: Where to report.
        several: Whether the data has several labels a text.

    Raises:
        ParamsError: transformers is not installed, or the folder is not there.
        CheckpointError: The files are no model that may or can be loaded.
        DownloadError: They can be neither found nor fetched.
    """
    folder, source = _locate(model, root, progress, several)
    pretrained = model.weights == "pretrained"
    facts = check_folder(folder, pretrained, several)
    if model.kind == "folder":
        source |= {"files": digests(folder, facts.names)}
    progress.say(f"load {facts.architecture} from {model.name}")
    with seeded(model.seed):
        classifier = load_network(folder, 2, pretrained)
    rows = classifier.get_input_embeddings().num_embeddings
    fast, config = load_tokenizer(folder, rows), classifier.config
    tokenizer = wrap(fast, choose_pad(fast, config.get_text_config(), rows))
    description = {
        "name": model.name,
        "weights": model.weights,
        "parameters": sum(p.numel() for p in classifier.base_model.parameters()),
        "source": source,
        "architecture": facts.architecture,
        "model_type": config.model_type,
        "context": _context(classifier, fast),
        "initialised": classifier.initialised,
        "pad_token": fast.pad_token,
        "prefix": list(tokenizer.prefix),
        "suffix": list(tokenizer.suffix),
    }
    network, head = classifier.base_model, classifier.known_head
    base = HubBase(network, tokenizer, description, copy.deepcopy(config), head)
    with of_transformers(folder, "run the network"):
        _require_indifference(base)
    return base


def _locate(
    model: ModelParams, root: Path, progress: Progress, several: bool
) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a model's files, fetched where it is on the hub, and their origin."""
    if model.kind == "folder":
        return find_folder(model.name, root), {"kind": "folder"}
    assert model.revision is not None
    pretrained = model.weights == "pretrained"
    fetched = fetch(model.name, model.revision, progress, pretrained, several)
    origin = {"repository": model.name, "revision": fetched.commit}
    return fetched.folder, {"kind": "checkpoint", **origin, "files": fetched.files}


def load_hub(folder: Path, description: dict[str, Any], with_weights: bool) -> HubBase:
    """Return the model in a folder of `models.base.save_base`, on the CPU.

    Args:
        folder: The folder.
        description: What `read_description` says of it.
        with_weights: False leaves them as memory comes.

    Raises:
        ParamsError: transformers is not installed.
        MissingArtifactError: A file is missing.
        IntegrityError: A file has changed since it was written.
    """
    library, files = transformers(), verified_part(folder / FILES, folder, "base_model")
    with without_warnings("transformers"):
        config = library.AutoConfig.from_pretrained(files, local_files_only=True)
        fast = library.AutoTokenizer.from_pretrained(files, local_files_only=True)
        with _uninitialised():
            classifier = _classifier_of(config)
    classifier.tie_weights()  # which is a part of the initialisation
    network = classifier.base_model
    if with_weights:
        path = verified(folder / "model.safetensors", "base_model")
        shapes = {name: tuple(tensor.shape) for name, tensor in _tensors(network).items()}
        assign(network, load_state(path, shapes))
    prefix, suffix = tuple(description["prefix"]), tuple(description["suffix"])
    tokenizer = HubTokenizer(fast, prefix, suffix, config.get_text_config().pad_token_id)
    head = load_any_state(files / HEAD) if (files / HEAD).exists() else {}
    return HubBase(network, tokenizer, description, copy.deepcopy(config), head)


def _classifier_of(config: Any) -> Any:
    """Return transformers' classifier of a config, with the weights that the surroundings give."""
    auto = transformers().AutoModelForSequenceClassification
    return auto.from_config(config, dtype=torch.float32, trust_remote_code=False)


def _uninitialised() -> Any:
    from transformers.initialization import no_init_weights

    return no_init_weights()


def _initialise_head(model: Any) -> None:
    """Give a head its random weights, in place, as transformers does where files have none.

    Checked by tests/unit/models/hub/test_architectures.py against transformers, bit for bit.
    """
    head = nn.ModuleDict({name: getattr(model, name) for name in head_names(model)})
    head.to_empty(device="cpu")
    for parameter in head.parameters():
        nn.init.constant_(parameter, float("nan"))
    for part in head.values():
        part.apply(model._init_weights)
    model._init_weights(model)  # by which ModernBERT starts the last layer
    left = [name for name, p in head.named_parameters() if not bool(p.isfinite().all())]
    if left:
        raise CheckpointError(
            "transformers does not say how the head of the model starts.",
            where=f"{type(model).__name__}: {', '.join(left)}",
            expected="a head whose parts transformers initialises",
            next=OTHER_MODEL,
        )


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return a network's parameters and stored numbers by their first names."""
    stored = network.state_dict(keep_vars=True)
    buffers = {name: b for name, b in network.named_buffers() if name in stored}
    numbers = {name: b for name, b in buffers.items() if b.is_floating_point()}
    return {**dict(network.named_parameters()), **numbers}


def _context(classifier: Any, fast: Any) -> int:
    """Return the longest text that a network takes, in tokens, specials included."""
    config = classifier.config.get_text_config()
    known = [fast.model_max_length, getattr(config, "max_position_embeddings", None)]
    for module in classifier.modules():
        positions = getattr(module, "position_embeddings", None)
        if isinstance(positions, nn.Embedding) and positions.padding_idx is not None:
            # RoBERTa and its family count positions from the one behind padding's.
            known.append(positions.num_embeddings - positions.padding_idx - 1)
    limits = [int(limit) for limit in known if limit is not None and 0 < limit < UNLIMITED]
    if limits:
        return min(limits)
    raise CheckpointError(
        "Neither the model's config nor its tokenizer says how long a text may be.",
        where=str(fast.name_or_path),
        expected="max_position_embeddings in config.json, or model_max_length in "
        "tokenizer_config.json",
        actual="neither, or no limit",
        next="set model_max_length in a copy in inputs/models/NAME to the length that the model\n"
        "was trained on (often 512)",
    )


@torch.inference_mode()
def _require_indifference(base: HubBase) -> None:
    """Refuse a model whose answer on a text changes when the text is padded."""
    head = ClassifierParams(position="last_token", bias=True)
    model = base.new_classifier(2, head, seed=0).eval()
    prefix, suffix = base.tokenizer.prefix, base.tokenizer.suffix
    ids = base.tokenizer.encode_all(TRIAL)
    whole = [torch.tensor([*prefix, *text, *suffix]).numpy() for text in ids]
    together = model.of_packed(collate(Examples(whole, torch.zeros(2).long().numpy())).texts)
    alone = [
        model.of_packed(collate(Examples([text], torch.zeros(1).long().numpy())).texts)
        for text in whole
    ]
    difference = (together - torch.cat(alone)).abs().max() / torch.cat(alone).abs().max()
    if not difference <= TOLERANCE:
        raise CheckpointError(
            "The model answers otherwise when a text is padded, even though padding is masked.",
            where=base.description["architecture"],
            expected=f"logits that differ by at most {TOLERANCE:g} of the largest",
            actual=f"{float(difference):.3g}",
            next=OTHER_MODEL,
        )
