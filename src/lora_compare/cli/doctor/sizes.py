"""How many parameters and bytes a model and its methods have, known before there is any.

Checked by tests/unit/cli/test_doctor.py against the models themselves.
"""

from dataclasses import replace

from lora_compare.params import (
    CONFIGS,
    GPTConfig,
    LoraParams,
    MethodParams,
    ModelParams,
    gpt_architecture,
)

FLOAT32 = 4
"""Bytes of a stored parameter, and of a trained one in memory."""

CLASSES = 2
"""Number of classes to reckon with: a class more is one row of the head."""


def shape(model: ModelParams) -> GPTConfig:
    """Return the shape of the configured network."""
    config = CONFIGS[model.name]
    if model.name == "gpt2-nano":
        return replace(config, vocab_size=model.pretraining.vocabulary_size)
    return config


def parameters(config: GPTConfig) -> int:
    """Return the number of parameters of a GPT without a head."""
    d = config.n_embd
    return (config.vocab_size + config.context_length) * d + config.n_layer * _block(d) + 2 * d


def trained(config: GPTConfig, method: MethodParams) -> int:
    """Return about how many parameters a method trains; none for an imported adapter.

    DoRA's magnitudes and trained biases of other layers are left out: a thousandth.
    """
    d = config.n_embd
    head = d * CLASSES + CLASSES
    known = {
        "all": parameters(config) + head,
        "head": head,
        "last_block": _block(d) + 2 * d + head,
        "last_two_blocks": 2 * _block(d) + 2 * d + head,
    }
    return known.get(method.trainable, 0) if method.lora is None else _lora(config, method.lora)


def _block(d: int) -> int:
    """Return the parameters of a transformer block: matrices, biases and two norms."""
    return 12 * d * d + 13 * d


def _lora(config: GPTConfig, settings: LoraParams) -> int:
    network = gpt_architecture(config, CLASSES)
    choice = network.choose(settings)
    layers = {path: network.modules[path] for path in [*choice.adapted, *choice.saved]}
    sides = {path: layer.sides for path, layer in layers.items() if layer is not None}
    adapters = sum(choice.ranks[path] * sum(sides[path]) for path in choice.adapted)
    return adapters + sum(sides[path][0] * sides[path][1] for path in choice.saved if path in sides)
