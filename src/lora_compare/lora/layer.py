"""One frozen layer and the low-rank adapters on it."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lora_compare.compute.linear import Adapted, adapted_linear
from lora_compare.lora.plain import is_quantized, matrix, output_scale, with_weight


def lora_delta(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """Return the (d_out, d_in) matrix that merging one adapter adds to W.

    Args:
        a: Down-projection, shape (r, d_in).
        b: Up-projection, shape (d_out, r).
        scale: Unitless factor, lora_alpha / r, or lora_alpha / sqrt(r) for rsLoRA.

    Source: Hu et al. 2021, arXiv:2106.09685, section 4.1.
    Checked by tests/unit/lora/test_lora.py::test_merged_layer_computes_what_the_adapter_does.
    """
    return scale * (b @ a)


class LowRank(nn.Module):
    """One adapter's tensors on one layer whose weight W has shape (d_out, d_in).

    The adapted layer computes with W + scale * (B A - B0 A0), where A0 and B0 are the factors
    at the start if these were taken from W itself (PiSSA, OLoRA), else absent.

    Args:
        a: The start of A, shape (r, d_in).
        b: The start of B, shape (d_out, r).
        scale: Unitless factor of the update.
        dropout: Probability of zeroing an input of the update while training.
        subtract_start: Whether the start is taken out of W, so that training begins at W.

    Attributes:
        lora_A: Shape (r, d_in), trained.
        lora_B: Shape (d_out, r), trained.
        lora_magnitude: Shape (d_out,), trained; None without DoRA.
        initial_A: Shape (r, d_in), fixed; None where nothing is subtracted.
        initial_B: Shape (d_out, r), fixed; None where nothing is subtracted.
    """

    lora_magnitude: nn.Parameter | None
    initial_A: Tensor | None  # noqa: N815
    initial_B: Tensor | None  # noqa: N815

    def __init__(
        self, a: Tensor, b: Tensor, scale: float, dropout: float, subtract_start: bool
    ) -> None:
        super().__init__()
        self.scale = scale
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.lora_A = nn.Parameter(a)
        self.lora_B = nn.Parameter(b)
        self.register_parameter("lora_magnitude", None)
        self.register_buffer("initial_A", a.clone() if subtract_start else None)
        self.register_buffer("initial_B", b.clone() if subtract_start else None)

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor that the adapter consists of, by its attribute's name."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def update(self, x: Tensor) -> Tensor:
        """Return scale * B A x, shape (..., d_out) for `x` of shape (..., d_in)."""
        return self.scale * F.linear(F.linear(x, self.lora_A), self.lora_B)

    def looked_up(self, ids: Tensor, padding_idx: int | None) -> Tensor:
        """Return scale * B A x, shape (..., d_out), for the one-hot vectors x of an embedding.

        Args:
            ids: Which element of each x is 1, shape (...).
            padding_idx: The id whose vector is not trained, as in `nn.Embedding`.
        """
        down = F.embedding(ids, self.lora_A.T, padding_idx)
        return self.scale * F.linear(down, self.lora_B)

    def subtracted(self, x: Tensor) -> Tensor | None:
        """Return scale * B0 A0 x, shape (..., d_out); None where nothing is subtracted."""
        if self.initial_A is None or self.initial_B is None:
            return None
        return self.scale * F.linear(F.linear(x, self.initial_A), self.initial_B)

    def delta(self) -> Tensor:
        """Return what the adapter adds to W before any magnitude, shape (d_out, d_in)."""
        delta = lora_delta(self.lora_A, self.lora_B, self.scale)
        if self.initial_A is None or self.initial_B is None:
            return delta
        return delta - lora_delta(self.initial_A, self.initial_B, self.scale)

    @torch.no_grad()
    def norms(self, weight: Tensor) -> Tensor:
        """Return the Euclidean norm of each row of W plus the update, shape (d_out,).

        It has no gradient: DoRA takes it as a constant (its section 4.3).
        """
        # In float32 at least: a magnitude over a norm of few digits would scale the layer.
        delta = self.delta()
        wide = torch.promote_types(weight.dtype, delta.dtype)
        norms: Tensor = torch.linalg.vector_norm(weight.to(wide) + delta.to(wide), dim=1)
        return norms

    def start_magnitude(self, weight: Tensor) -> None:
        """Train the rows' magnitudes too, from those of W; `weight` has W's shape."""
        self.lora_magnitude = nn.Parameter(self.norms(weight).to(self.lora_A.dtype))

    def merged(self, weight: Tensor) -> Tensor:
        """Return the weight that alone computes what W and the adapter do together.

        It is computed in float32 at least, so that a low precision rounds once.

        Args:
            weight: W, shape (d_out, d_in).
        """
        wide = torch.promote_types(weight.dtype, torch.float32)
        merged = weight.to(wide) + self.delta().to(wide)
        if self.lora_magnitude is not None:
            merged *= (self.lora_magnitude.to(wide) / self.norms(weight.to(wide)))[:, None]
        return merged.to(weight.dtype)


class LoRALayer(nn.Module):
    """A frozen layer and the adapters on it, of which one may be active.

    Args:
        base_layer: The layer to adapt, `lora.plain.is_adaptable`; its parameters are never
            changed.

    Attributes:
        base_layer: The frozen layer, or, while merged, its stand-in.
        adapters: The adapters by name.
        active: Name of the adapter in use; None computes what the frozen layer computes.
        is_sharded: Whether the frozen weight is whole only while the layer computes, so that
            nothing may keep it or move it.
    """

    is_sharded = False

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.adapters = nn.ModuleDict()
        self.active: str | None = None
        # In a tuple, because a module would become a second submodule with its parameters.
        self._unmerged: tuple[nn.Module] | None = None

    def adapter(self, name: str) -> LowRank | None:
        """Return the adapter of that name, or None if this layer has no such adapter."""
        found = dict(self.adapters.items()).get(name)
        assert found is None or isinstance(found, LowRank)
        return found

    @property
    def weight(self) -> Tensor:
        """The base layer's W in full precision of its type, shape (d_out, d_in)."""
        return matrix(self.base_layer)

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias, shape (d_out,), or None."""
        bias: Tensor | None = getattr(self.base_layer, "bias", None)
        return bias

    def forward(self, x: Tensor) -> Tensor:
        """Return the adapted layer's output.

        Args:
            x: Inputs, shape (..., d_in); ids of shape (...) for an embedding.

        Returns:
            Outputs, shape (..., d_out).
        """
        adapted = self.adapted()
        if adapted is not None:
            return adapted_linear(x, [adapted])[0]
        base: Tensor = self.base_layer(x)
        adapter = self._in_use()
        if adapter is None:
            return base
        dropped, update, subtracted = self._inside(adapter, x)
        if adapter.lora_magnitude is not None:
            return base + self._dora(adapter, base, x, dropped, update, subtracted)
        # The difference first: at the start it is exactly zero, and the output exactly `base`.
        return base + (update if subtracted is None else update - subtracted)

    def _inside(self, adapter: LowRank, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the input of the update, the update, and what to subtract from it."""
        layer = self.base_layer
        if isinstance(layer, nn.Embedding):
            update = adapter.looked_up(x, layer.padding_idx)
            return x, update * output_scale(layer), None
        dropped = adapter.dropout(x)
        return dropped, adapter.update(dropped), adapter.subtracted(x)

    def _in_use(self) -> LowRank | None:
        return None if self.active is None or self._unmerged else self.adapter(self.active)

    def adapted(self) -> Adapted | None:
        """Return weight, bias, A and B where they are all there is to compute with.

        None without an active adapter, while merged, and for adapters with dropout, DoRA or a
        start to subtract, of embeddings, and of quantised or sharded weights.
        """
        adapter, layer = self._in_use(), self.base_layer
        if (
            adapter is None
            or self.is_sharded
            or adapter.lora_magnitude is not None
            or adapter.initial_A is not None
            or (adapter.training and isinstance(adapter.dropout, nn.Dropout))
            or isinstance(layer, nn.Embedding)
            or is_quantized(layer)
        ):
            return None
        return Adapted(self.weight, self.bias, adapter.lora_A, adapter.lora_B, adapter.scale)

    def _dora(
        self,
        adapter: LowRank,
        base: Tensor,
        x: Tensor,
        dropped: Tensor,
        update: Tensor,
        subtracted: Tensor | None,
    ) -> Tensor:
        """Return what DoRA adds to the base layer's output, shape (..., d_out).

        Source: Liu et al. 2024, arXiv:2402.09353, equation 5.
        """
        assert adapter.lora_magnitude is not None
        weight = self.weight.to(update.dtype)
        ratio = adapter.lora_magnitude / adapter.norms(weight)
        if dropped is x:
            direction = base if self.bias is None else base - self.bias
        else:
            # Dropout acts on all of the direction, as in PEFT, and thus on W's part too.
            direction = F.linear(dropped, weight)
        addend = ratio * update
        if subtracted is not None:
            direction = direction - subtracted
            addend = addend - subtracted
        return addend + (ratio - 1) * direction

    def merge(self) -> None:
        """Let a plain layer with the active adapter's update stand in for the base layer.

        The base layer is kept aside, so that `unmerge` brings back its very bits. Without an
        active adapter, or merged already, nothing changes.
        """
        adapter = None if self.active is None else self.adapter(self.active)
        if adapter is None or self._unmerged:
            return
        with torch.no_grad():
            merged = adapter.merged(self.weight)
        self._unmerged = (self.base_layer,)
        self.base_layer = with_weight(self.base_layer, merged)

    def unmerge(self) -> None:
        """Put the base layer back; not merged, nothing changes."""
        if self._unmerged:
            (layer,) = self._unmerged
            stand_in = next(self.base_layer.parameters())
            self.base_layer = layer.to(stand_in.device)
            self._unmerged = None
