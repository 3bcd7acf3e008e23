"""transformers' network and tokenizer of a checked folder; its errors and notes become ours."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from lora_compare.errors import CheckpointError, UserError
from lora_compare.models.hub.folder import count_stored, unfit_weights
from lora_compare.models.hub.network import head_names
from lora_compare.models.hub.settings import OTHER_MODEL, transformers
from lora_compare.project.progress import without_warnings

_BUFFER = re.compile(r".*(\.(attn|attention)\.(masked_)?bias|inv_freq|position_ids|token_type_ids)")
"""What older versions of transformers stored beside the weights."""


def load_network(folder: Path, n_classes: int, with_weights: bool = True) -> Any:
    """Return transformers' classifier of a folder in float32 on the CPU, in evaluation mode.

    Its head is random, and so is a pooler before it that the file does not hold; random numbers
    come from torch's generator. Its attribute `initialised` names the pooler's tensors then, as
    the network below the head does; `known_head` are the head's that the file holds.

    Args:
        folder: A folder that `check_folder` has passed.
        n_classes: Classes of its head.
        with_weights: False: every weight is random, as transformers initialises it.

    Raises:
        CheckpointError: The weights are not those of the config: each difference is named; the
            model does not fit into this machine's memory, or transformers refuses it.
        ParamsError: transformers is not installed.

    Checked by tests/unit/models/hub/test_loading.py.
    """
    library = transformers()
    auto = library.AutoModelForSequenceClassification
    with of_transformers(folder, "make the network"):
        config = library.AutoConfig.from_pretrained(
            folder, num_labels=n_classes, trust_remote_code=False, local_files_only=True
        )
        # How it was run where it was saved: by what attention, and what else it returned.
        config._attn_implementation = config._experts_implementation = None
        config.output_attentions = config.output_hidden_states = False
        config.return_dict = True
        _require_size(folder, config, with_weights)
        if not with_weights:
            network = auto.from_config(config, dtype=torch.float32, trust_remote_code=False).eval()
            network.initialised, network.known_head = [], {}  # as is all of it
            return network
        network, found = auto.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,  # all of them are named below
            output_loading_info=True,
        )
    if problems := list(_differences(network, found)):
        raise unfit_weights(folder, problems)
    network.initialised = sorted(_of_base(network, found["missing_keys"]))
    network.known_head = _known_head(network, found)
    return network


def load_tokenizer(folder: Path, rows: int) -> Any:
    """Return the fast tokenizer of a folder.

    Args:
        folder: A folder that `check_folder` has passed.
        rows: Rows of the network's token embedding.

    Raises:
        CheckpointError: It is no fast one, knows no words or more tokens than the embedding, or
            transformers refuses it.
        ParamsError: transformers is not installed.
    """
    library = transformers()
    with of_transformers(folder, "make the tokenizer"):
        tokenizer = library.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if not tokenizer.is_fast or vocabulary.keys() <= tokenizer.added_tokens_encoder.keys():
        raise CheckpointError(
            "The model has no fast tokenizer.",
            where=str(folder),
            expected="a tokenizer.json with a vocabulary",
            actual=f"{type(tokenizer).__name__} with {len(vocabulary)} tokens",
            next="save its tokenizer there with transformers' AutoTokenizer and save_pretrained,\n"
            f"or {OTHER_MODEL}",
        )
    token, last = max(vocabulary.items(), key=lambda item: item[1])
    if last >= rows:
        raise CheckpointError(
            "The tokenizer is not that of the network: it has tokens that the network lacks.",
            where=str(folder),
            expected=f"token ids below {rows}, the rows of the network's embedding",
            actual=f"{token!r} has the id {last}",
            next="save the tokenizer there that the network was trained with, or enlarge the\n"
            "embedding: model.resize_token_embeddings(len(tokenizer)), then save_pretrained",
        )
    return tokenizer


def _require_size(folder: Path, config: Any, with_weights: bool) -> None:
    """Refuse a network that memory, or its files, cannot hold, before any of it is made.

    transformers would fill with random numbers what the files do not have, however large.
    """
    auto = transformers().AutoModelForSequenceClassification
    with torch.device("meta"):
        network = auto.from_config(config, trust_remote_code=False)
    parameters = sum(p.numel() for p in network.parameters())
    needed = 4 * parameters + sum(buffer.nbytes for buffer in network.buffers())
    memory = psutil.virtual_memory().total
    if needed > memory:
        raise CheckpointError(
            "The model does not fit into this machine's memory.",
            where=str(folder),
            expected=f"at most {memory / 1e9:.3g} GB",
            actual=f"{needed / 1e9:,.3g} GB in float32, of {parameters:,} parameters",
            next=f"{OTHER_MODEL}, or run this on a larger machine",
        )
    if with_weights and parameters > 2 * (stored := count_stored(folder)):
        counts = f"{parameters:,} parameters in the network of the config, {stored:,} in the files"
        raise unfit_weights(folder, [counts])


def _differences(network: Any, found: Any) -> Iterator[str]:
    """Yield what a file holds other than the network, but for heads and what is no weight."""
    prefix = network.base_model_prefix + "."
    for name in sorted(found["missing_keys"]):
        if name.startswith(prefix) and ".pooler." not in name:
            yield f"{name}: missing"
    for name, stored, wanted in sorted(found["mismatched_keys"]):
        if name.startswith(prefix):
            yield f"{name}: shape {tuple(stored)}, the config's is {tuple(wanted)}"
    for name in _unknown(network.base_model, prefix, found["unexpected_keys"]):
        yield f"{name}: not part of the model of the config"
    yield from found["error_msgs"]


def _of_base(network: Any, names: Iterable[str]) -> Iterator[str]:
    """Yield those of the classifier's names that are the base's, as the base has them."""
    prefix = network.base_model_prefix + "."
    return (name.removeprefix(prefix) for name in names if name.startswith(prefix))


def _known_head(network: Any, found: Any) -> dict[str, Tensor]:
    """Return the head's tensors that a file holds, without its last layer: the classes are new."""
    heads = tuple(f"{name}." for name in head_names(network))
    sizes = {path: getattr(m, "out_features", 0) for path, m in network.named_modules()}
    last = [
        p for p, n in sizes.items() if f"{p}.".startswith(heads) and n == network.config.num_labels
    ]
    lacking = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    own = {n: p.detach() for n, p in network.named_parameters() if n.startswith(heads)}
    new = tuple(f"{path}." for path in last[-1:])
    return {n: p for n, p in own.items() if n not in lacking and not n.startswith(new)}


def _unknown(base: nn.Module, prefix: str, names: Iterable[str]) -> list[str]:
    """Return stored tensors in the base's layers that are none of its own."""
    parts = {name for name, _ in base.named_children()}
    inside = ((name, name.removeprefix(prefix)) for name in sorted(names))
    return [
        name
        for name, path in inside
        if path.split(".")[0] in parts
        and re.search(r"\.\d+\.", path)
        and not _BUFFER.fullmatch(path)
    ]


@contextmanager
def of_transformers(folder: Path, what: str) -> Iterator[None]:
    """Keep back what transformers prints in the block, and turn its errors into ours.

    Args:
        folder: The model's folder.
        what: What it does there with a part of the model, in words.

    Raises:
        CheckpointError: transformers cannot do it.
    """
    logging = transformers().utils.logging
    had_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with without_warnings("transformers"):
            yield
    except UserError:
        raise
    # Each of transformers' hundreds of architectures has errors of its own.
    except Exception as error:
        reason = str(error).strip() or "no reason given"
        raise CheckpointError(
            f"transformers cannot {what} of the model.",
            where=str(folder),
            expected="config, weights and tokenizer of one model, as save_pretrained writes them",
            actual=f"{type(error).__name__}: " + "\n".join(reason.splitlines()[:10]),
            next=f"save the model there anew, or {OTHER_MODEL}",
        ) from error
    finally:
        if had_bars:
            logging.enable_progress_bar()
