"""GPT-2's checkpoints in and out: other names, and matrices the other way round."""

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lora_compare.models.weights import opened, read_tensors, refusal
from lora_compare.params import GPTConfig

QKV = ("q_proj", "k_proj", "v_proj")
"""The layers that GPT-2 stores as one, `c_attn`, in the order of its rows."""


def load_gpt2_state(path: Path, config: GPTConfig) -> dict[str, Tensor]:
    """Return the weights of a GPT-2 checkpoint under the names of `gpt.GPT`, in float32.

    GPT-2 stores its linear weights as (d_in, d_out) and query, key and value as one layer.
    A prefix `transformer.` is dropped, stored attention masks are ignored, and an output
    layer must equal the token embedding to which it is tied.

    Args:
        path: A safetensors file in the format of the hub's `openai-community/gpt2`.
        config: The network's shape.

    Raises:
        CheckpointError: The file is no safetensors file, or does not fit; every difference
            is named by its key.

    Checked by tests/parity/test_gpt2_weights.py.
    """
    shapes = gpt2_shapes(config)
    head = {"lm_head.weight": shapes["wte.weight"]}
    tensors = read_tensors(path, shapes, optional=head, canonical=_gpt2_name)
    output = tensors.pop("lm_head.weight", None)
    if output is not None and not torch.equal(output, tensors["wte.weight"]):
        raise refusal(path, ["lm_head.weight: differs from wte.weight, to which it is tied"])
    state: dict[str, Tensor] = {}
    for name in list(tensors):
        state |= from_gpt2(name, tensors.pop(name))
    return state


def gpt2_state_dict(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a `gpt.GPT` under GPT-2's names and in its layout.

    Args:
        state: All weights of a `gpt.GPT`, as from `state_dict()` or `load_gpt2_state`.
    """
    stored: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if ".k_proj." in name or ".v_proj." in name:
            continue
        parts = [tensor]
        if ".q_proj." in name:
            parts += [state[name.replace("q_proj", other)] for other in ("k_proj", "v_proj")]
            name = name.replace("q_proj", "c_attn")
        whole = torch.cat(parts)
        stored[name] = whole.T.contiguous() if _is_transposed(name) else whole
    return stored


def holds_gpt2(path: Path, state: Mapping[str, Tensor]) -> bool:
    """Return whether a GPT-2 checkpoint has exactly these weights, whatever else it holds.

    Args:
        path: A safetensors file in the format of the hub's `openai-community/gpt2`.
        state: All weights of a `gpt.GPT`.

    Raises:
        CheckpointError: It is no safetensors file.
    """
    with opened(path) as file:
        keys = {key.removeprefix("transformer."): key for key in file.keys()}  # noqa: SIM118
        return all(
            name in keys and torch.equal(file.get_tensor(keys[name]).float(), tensor)
            for name, tensor in gpt2_state_dict(state).items()
        )


def gpt2_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a GPT-2 checkpoint by its name."""
    d = config.n_embd
    block = {"ln_1": (d,), "attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d)}
    block |= {"ln_2": (d,), "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
    shapes = {"wte.weight": (config.vocab_size, d), "wpe.weight": (config.context_length, d)}
    result: dict[str, tuple[int, ...]] = dict(shapes)
    for index in range(config.n_layer):
        for layer, shape in block.items():
            result[f"h.{index}.{layer}.weight"] = shape
            result[f"h.{index}.{layer}.bias"] = shape[-1:]
    return result | {"ln_f.weight": (d,), "ln_f.bias": (d,)}


def _gpt2_name(key: str) -> str | None:
    """Return the name without its prefix of a stored tensor, or None for a mask."""
    name = key.removeprefix("transformer.")
    return None if re.fullmatch(r"h\.\d+\.attn\.(masked_)?bias", name) else name


def from_gpt2(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Return the one or three tensors of `gpt.GPT` that one of GPT-2's becomes."""
    if _is_transposed(name):
        tensor = tensor.T
    if ".c_attn." not in name:
        return {name: tensor.contiguous()}
    parts = zip(QKV, tensor.chunk(3), strict=True)
    return {name.replace("c_attn", part): piece.clone() for part, piece in parts}


def _is_transposed(name: str) -> bool:
    """Whether GPT-2 stores a tensor of this name as (d_in, d_out)."""
    return name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight"))
