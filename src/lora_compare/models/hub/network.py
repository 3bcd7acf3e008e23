"""A classifier of transformers as this project's network: packed texts in, logits out."""

import threading
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from lora_compare.errors import ParamsError
from lora_compare.models.batches import Packed
from lora_compare.models.hub.padding import on_real_tokens
from lora_compare.models.network import Network
from lora_compare.params import ClassifierParams

INSIDE = "model."
"""What stands before transformers' own names in this network's."""

FINAL_NORMS = ("ln_f", "norm", "final_norm", "final_layer_norm", "final_layernorm")
"""How architectures call the norm behind their last block; it stands beside the list of them."""


class HubClassifier(Network):
    """A sequence classifier of transformers, which pools as its architecture does.

    Args:
        model: The classifier.
        head: The settings of the head.

    Attributes:
        model: The classifier.
    """

    def __init__(self, model: Any, head: ClassifierParams) -> None:
        super().__init__()
        self.model = model
        self.n_classes, self.model_type = model.config.num_labels, model.config.model_type
        self.position, self.bias = head.position, head.bias
        self.pad: int = model.config.get_text_config().pad_token_id
        self.head = tuple(INSIDE + name for name in head_names(model))
        self.embedding = _embedding(self)
        for module in self.head_modules():
            module.register_forward_pre_hook(_leave_autocast)
            module.register_forward_hook(_enter_autocast, always_call=True)

    def of_packed(self, texts: Packed) -> Tensor:
        """Return the logits of b texts, shape (b, n_classes).

        Shorter texts are padded on the right and masked. There it is exact for causal attention,
        for absolute positions, and for decoders that know no mask.

        Checked by tests/parity/test_architectures.py against transformers.
        """
        lengths = texts.bounds.diff()[:, None]  # (b, 1)
        longest = max(texts.lengths)
        places = torch.arange(longest, device=lengths.device)
        mask = places < lengths  # (b, t)
        index = (texts.bounds[:-1, None] + places).clamp(max=len(texts.tokens) - 1)
        ids = torch.where(mask, texts.tokens[index], self.pad)
        padded = min(texts.lengths) < longest
        # Evaluation sorts by length and has little padding, and serving has threads; what a
        # checkpointed block computes anew, it computes after this.
        whole = not padded or self.checkpointing or not torch.is_grad_enabled()
        with nullcontext() if whole else on_real_tokens(self.model.base_model, mask):
            output = self.model(ids, attention_mask=mask.long() if padded else None)
        logits: Tensor = output.logits
        return logits

    def of_padded(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits of b texts, shape (b, n_classes), always with a mask.

        Checked by tests/unit/models/test_losses.py against `of_packed`.
        """
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        ids = torch.where(mask, tokens, self.pad)
        logits: Tensor = self.model(ids, attention_mask=mask.long()).logits
        return logits

    def top(self, blocks: int) -> list[nn.Module]:
        """Return the head, and with any blocks the last `blocks`, the final norm and the pooler.

        Of an encoder and a decoder the decoder's blocks are the last.

        Args:
            blocks: How many; a network of fewer gives all that it has.
        """
        head = [*self.head_modules()]
        if not blocks:
            return head
        base = self.model.base_model
        lists = {path: m for path, m in base.named_modules() if isinstance(m, nn.ModuleList)}
        outer = [path for path in lists if not path.startswith(tuple(f"{p}." for p in lists))]
        longest = max(len(lists[path]) for path in outer)
        path = [path for path in outer if len(lists[path]) == longest][-1]
        beside = dict(base.get_submodule(path.rpartition(".")[0]).named_children())
        norms = [beside[name] for name in FINAL_NORMS if name in beside]
        pooler = getattr(base, "pooler", None)
        above = [*norms, *([pooler] if pooler is not None else [])]
        return [*head, *above, *list(lists[path])[-blocks:]]

    @property
    def output(self) -> nn.Module:
        """The head's last layer."""
        layers = [m for head in self.head_modules() for m in head.modules()]
        return next(m for m in reversed(layers) if getattr(m, "out_features", 0) == self.n_classes)

    @property
    def checkpointing(self) -> bool:
        """Whether training keeps each block's input alone and computes the rest anew."""
        return bool(self.model.is_activation_checkpointing)

    @checkpointing.setter
    def checkpointing(self, on: bool) -> None:
        if not on:
            if self.checkpointing:
                self.model.activation_checkpointing_disable()
        elif self.model.supports_gradient_checkpointing:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        else:
            raise ParamsError(
                "transformers cannot compute this architecture's blocks anew.",
                where="params.yaml: training.gradient_checkpointing",
                expected="false",
                actual=f"true, for {self.model_type}",
                next="set training.gradient_checkpointing: false in params.yaml",
            )

    def compile_blocks(self) -> None:
        """Refuse to compile: only GPT-2's blocks are known here.

        Raises:
            ParamsError: Always.
        """
        raise ParamsError(
            "Only GPT-2's blocks are compiled.",
            where="params.yaml: training.compile",
            expected="false for models on the hub and folders of them, but for device: cuda "
            "without gradient_checkpointing",
            actual=f"true, for {self.model_type}",
            next="set training.compile: false in params.yaml",
        )

    def aliases(self, path: str) -> list[str]:
        """Return the dotted path that a module has in transformers."""
        return [path.removeprefix(INSIDE)] if path.startswith(INSIDE) else []


def head_names(model: Any) -> list[str]:
    """Return the names of those parts of transformers' classifier that are not the base's."""
    return [
        name
        for name, child in model.named_children()
        if name != model.base_model_prefix and next(child.parameters(), None) is not None
    ]


def _embedding(network: HubClassifier) -> str | None:
    """Return the path of the token embedding, if it is a plain one that nothing else has."""
    table = network.model.get_input_embeddings()
    modules = network.named_modules(remove_duplicate=False)
    paths = [path for path, module in modules if module is table]
    parameters = network.named_parameters(remove_duplicate=False)
    shared = sum(parameter is table.weight for _, parameter in parameters)
    return paths[0] if type(table) is nn.Embedding and len(paths) == shared == 1 else None


class _Left(threading.local):
    """The contexts in which heads are computed now: a served model answers in several threads."""

    def __init__(self) -> None:
        self.contexts: list[torch.autocast] = []


_LEFT = _Left()


def _leave_autocast(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Let a head compute in full precision: a bfloat16 has too few digits for probabilities."""
    context = torch.autocast(inputs[0].device.type, enabled=False)
    context.__enter__()
    _LEFT.contexts.append(context)
    return tuple(x.to(torch.promote_types(x.dtype, torch.float32)) for x in inputs)


def _enter_autocast(_module: nn.Module, _inputs: Any, _output: Any) -> None:
    _LEFT.contexts.pop().__exit__(None, None, None)
