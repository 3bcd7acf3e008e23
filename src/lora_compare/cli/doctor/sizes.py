"""How many parameters a model and its methods have, known before there is any weight.

Checked by tests/unit/cli/test_doctor.py against the models themselves.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lora_compare.params import CONFIGS, MethodParams, ModelParams, Params

if TYPE_CHECKING:
    from lora_compare.models.network import Network

FLOAT32 = 4
"""Bytes of a stored parameter, and of a trained one in memory."""

CLASSES = 2
"""Number of classes to reckon with: a class more is one row of the head."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of parameters.

    Attributes:
        width: Width of the base's residual stream.
        parameters: Parameters of the base, without a head.
        trained: Parameters that each method trains, by name; none for an imported adapter.
    """

    width: int
    parameters: int
    trained: Mapping[str, int]


def count(params: Params, root: Path) -> Sizes | None:
    """Return the sizes of the models that params.yaml asks for; nothing is fetched.

    Args:
        params: The parameters.
        root: The project.

    Returns:
        None for a model on the hub whose config.json is not on this machine yet.

    Raises:
        UserError: A model's folder is not there or not in order, or a library is missing.
    """
    found = _network(params.model, root)
    if found is None:
        return None
    network, width = found
    head = sum(p.numel() for module in network.head_modules() for p in module.parameters())
    trained = {name: _trained(network, method) for name, method in params.methods.items()}
    return Sizes(width, sum(p.numel() for p in network.parameters()) - head, trained)


def _network(model: ModelParams, root: Path) -> "tuple[Network, int] | None":
    """Return a classifier on torch's device `meta`, where it takes no memory, and its width."""
    if model.kind != "gpt":
        from lora_compare.models.hub.shape import shape_at_hand

        shape = shape_at_hand(model, root)
        if shape is None:
            return None
        return shape, int(shape.model.config.get_text_config().hidden_size)
    import torch

    from lora_compare.models.gpt.network import GPT, Classifier

    config = CONFIGS[model.name]
    if model.name == "gpt2-nano":
        config = replace(config, vocab_size=model.pretraining.vocabulary_size)
    with torch.device("meta"):
        return Classifier(GPT(config), CLASSES, "last_token", True), config.n_embd


def _trained(network: "Network", method: MethodParams) -> int:
    from lora_compare import lora
    from lora_compare.models.methods import Trained, adapt, choose_trainable

    own = copy.deepcopy(network)
    if method.trainable == "imported":
        return 0
    if method.lora is None:
        choose_trainable(own, Trained.of(method), seed=0)
    else:
        # In 4 bit a weight counts as before.
        settings = method.lora.model_copy(update={"quantization": None})
        adapt(own, settings, initialise=False)
    return lora.count(own).trainable
