"""The tensors of one adapter, and those of the model without any, by name."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lora_compare.errors import CheckpointError
from lora_compare.lora.copies import owners
from lora_compare.lora.model import DEFAULT, adapted_layers
from lora_compare.lora.plain import dense_weight, is_quantized


def bare_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the tensors of `model` under the names of a model without adapters, not copied.

    The adapters' own tensors are left out; while the model is merged, their update is part of
    the weights. Parameters trained in full have the values of the adapter in use, and weights
    in 4 bit are dequantised.
    """
    layers = [path for path, _ in adapted_layers(model)]
    adapters = tuple(f"{path}.adapters" for path in layers)
    bare = {f"{path}.base_layer": path for path in layers}
    state: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if not path.startswith(adapters):
            prefix = bare.get(path, path)
            state |= {f"{prefix}.{n}".lstrip("."): t for n, t in _own_tensors(module).items()}
    return state


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the tensors that a state holds for `module` itself, without its parts."""
    tensors = {name: p.detach() for name, p in module.named_parameters(recurse=False)}
    transient = module._non_persistent_buffers_set
    tensors |= {n: b for n, b in module.named_buffers(recurse=False) if n not in transient}
    if is_quantized(module):
        tensors["weight"] = dense_weight(module)
    return tensors


def adapter_tensors(model: nn.Module, name: str = DEFAULT) -> dict[str, Tensor]:
    """Return the tensors that make up one adapter, not copied, by name.

    The factors are called `<layer>.lora_A` (r, d_in) and `<layer>.lora_B` (d_out, r), further
    `lora_magnitude` (d_out,), `initial_A` and `initial_B`; parameters that are trained in full
    have their path in the bare model.
    """
    tensors: dict[str, Tensor] = {}
    for path, layer in adapted_layers(model):
        if adapter := layer.adapter(name):
            tensors |= {f"{path}.{key}": tensor for key, tensor in adapter.tensors().items()}
    for path, _, copies in owners(model):
        bare = path.removesuffix(".base_layer")
        tensors |= {f"{bare}.{p}": known[name] for p, known in copies.items() if name in known}
    return tensors


def load_adapter_tensors(
    model: nn.Module, tensors: Mapping[str, Tensor], name: str = DEFAULT
) -> None:
    """Copy `tensors` into the adapter `name`, in place.

    Args:
        model: A model with that adapter injected.
        tensors: Exactly the tensors that `adapter_tensors` returns, in the same shapes.
        name: The adapter's name.

    Raises:
        CheckpointError: A tensor is missing, not the adapter's, or has another shape; nothing
            was changed.
    """
    own = adapter_tensors(model, name)
    problems = [f"{key}: missing" for key in own if key not in tensors]
    problems += [f"{key}: not part of the adapter" for key in tensors if key not in own]
    problems += [
        f"{key}: shape {tuple(tensors[key].shape)}, the adapter's is {tuple(own[key].shape)}"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    if problems:
        raise CheckpointError(
            f"The tensors do not fit the adapter: {len(problems)} differences.",
            actual="\n".join(problems[:10]),
        )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(tensors[key])
