"""How ranks share a model: each has it whole (DDP), or each has a part of every weight (FSDP)."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lora_compare.compute.ranks import Ranks
from lora_compare.lora import adapted_layers
from lora_compare.lora.plain import is_quantized
from lora_compare.models import weights
from lora_compare.models.batches import Packed
from lora_compare.models.network import Network

Forward = Callable[[Packed], Tensor]


def shard(model: Network, device: torch.device, dtype: torch.dtype) -> None:
    """Leave this rank a part of every parameter, in place, on its device.

    A block's weights are whole only while it computes. QLoRA's packed weights are cut like others;
    the constants of their quantisation stay whole on every rank.

    Args:
        model: The classifier, the same on every rank, on any device.
        device: Where the training runs.
        dtype: Type of the arithmetic. In bfloat16 a block that is trained whole is gathered in it,
            its norms' weights, too, which autocast alone would leave in float32.

    Source: Zhao et al. 2023, arXiv:2304.11277; torch's fully_shard (FSDP2).
    Checked by tests/unit/training/ranks/test_strategies.py against one process.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import (
        MixedPrecisionPolicy,
        fully_shard,
        register_fsdp_forward_method,
    )

    for _, layer in adapted_layers(model):
        layer.is_sharded = True
    constants = _separate_constants(model, device)
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    rounded = MixedPrecisionPolicy(dtype, torch.float32, cast_forward_inputs=False)
    for unit in _units(model):
        whole = all(parameter.requires_grad for parameter in unit.parameters())
        in_bfloat16 = whole and dtype == torch.bfloat16 and not isinstance(unit, nn.Embedding)
        policy = rounded if in_bfloat16 else MixedPrecisionPolicy()
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    # Its own weights, too, are cut again after each pass: who reads them finds parts, always.
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    register_fsdp_forward_method(model, "of_packed")
    for quantized, state in constants.items():
        sharded: Any = quantized.weight
        sharded.quant_state = state


def _separate_constants(model: nn.Module, device: torch.device) -> dict[nn.Module, Any]:
    """Make packed weights plain tensors of bytes, and return the constants of each by its layer."""
    constants = {}
    for layer in model.modules():
        if is_quantized(layer):
            layer.to(device)
            packed: Any = layer.weight
            constants[layer] = packed.quant_state
            plain = packed.data.as_subclass(Tensor)
            layer.register_parameter("weight", nn.Parameter(plain, requires_grad=False))
    return constants


def _units(model: Network) -> Iterator[nn.Module]:
    """Yield what is whole at one time: the token embedding, and each block."""
    lists = {path: m for path, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    outer = [path for path in lists if not path.startswith(tuple(f"{p}." for p in lists))]
    if model.embedding is not None:
        yield model.get_submodule(model.embedding)
    for path in outer:
        yield from lists[path]


def gather(model: nn.Module, ranks: Ranks) -> None:
    """Give the first rank the trained parameters whole, in its host memory, in place.

    Every rank calls it; the others keep their parts, and the model computes no more.

    Args:
        model: The model; one that is not sharded stays as it is.
        ranks: This process among the others.
    """
    whole = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and (gathered := getattr(parameter, "full_tensor", None)):
            tensor = gathered()
            if ranks.is_first:
                whole[name] = tensor.detach().to("cpu", copy=True)
    weights.assign(model, whole)


def on_cpu(tensor: Tensor) -> Tensor:
    """Return a copy in host memory; of a sharded tensor a sharded one."""
    copied = getattr(tensor, "to_local", lambda: tensor)().detach().to("cpu", copy=True)
    if copied.shape == tensor.shape and not hasattr(tensor, "placements"):
        return copied
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor

    sharded: Any = tensor
    mesh = init_device_mesh("cpu", (sharded.device_mesh.size(),))
    return DTensor.from_local(
        copied, mesh, sharded.placements, shape=tensor.shape, stride=tensor.stride()
    )


class SharedModel:
    """A model as its ranks train it.

    Args:
        model: The classifier, on its device; for `fsdp` sharded.
        ranks: This process among the others.
        text: Any text, by which `ddp` finds out whether the network uses all that is trained.

    Attributes:
        ranks: This process among the others.
    """

    def __init__(self, model: Network, ranks: Ranks, text: Packed | None = None) -> None:
        self.ranks = ranks
        self._forward: Forward = model.of_packed
        self._ddp: Any = None
        if ranks.strategy == "ddp":
            from torch.nn.parallel import DistributedDataParallel

            assert text is not None
            unused = _leaves_out(model, text)
            # Buffers never change.
            self._ddp = DistributedDataParallel(
                _OfPacked(model), forward_sync_buffers=False, find_unused_parameters=unused
            )
            self._forward = self._ddp

    def of_packed(self, texts: Packed) -> Tensor:
        """Return the logits of b texts, shape (b, n_classes).

        The gradients that come of them become the mean over all ranks.
        """
        return self._forward(texts)

    def passing(self, is_last: bool) -> AbstractContextManager[Any]:
        """Return the context of a forward and backward pass of a step, its last one or not."""
        if self._ddp is None or is_last:
            return nullcontext()
        return self._ddp.no_sync()  # type: ignore[no-any-return]


def _leaves_out(model: Network, text: Packed) -> bool:
    """Return whether the network's logits do not depend on one of the trained parameters."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()  # dice that dropout throws here would be missed later
    logits = model.of_packed(text.to(trained[0].device))
    gradients = torch.autograd.grad(logits.sum(), trained, allow_unused=True)
    return any(gradient is None for gradient in gradients)


class _OfPacked(nn.Module):
    """Lets DDP, which knows `forward` alone, call what training calls."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, texts: Packed) -> Tensor:
        return self.model.of_packed(texts)
