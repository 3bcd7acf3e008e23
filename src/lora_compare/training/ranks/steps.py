"""One optimizer step over texts, by one process or by several that have a part of them each."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from lora_compare.compute.optimizers import MasterAdamW
from lora_compare.compute.ranks import ALONE, Ranks
from lora_compare.models.batches import Batch, Examples, IntArray, collate
from lora_compare.models.losses import Passes, packed_loss
from lora_compare.models.network import Network
from lora_compare.training.ranks.strategies import SharedModel

NO_LABEL = -100
"""What stands for the class, or each label, of a text that has no part in the loss."""


def deal(examples: Examples, chosen: IntArray, ranks: Ranks = ALONE) -> Batch:
    """Return this rank's part of a forward pass.

    Args:
        examples: The training split.
        chosen: The pass's texts among them, of all ranks.
        ranks: Who shares them. A rank without a text gets one that has no part in the loss, since
            the others wait for it.
    """
    own = ranks.share(chosen)
    if len(own):
        return collate(examples.take(own))
    stand_in = collate(examples.take(chosen[:1]))
    return replace(stand_in, labels=torch.full_like(stand_in.labels, NO_LABEL))


@dataclass(frozen=True)
class Amount:
    """What a step works on.

    Attributes:
        weight: What all its texts weigh in the loss together.
        texts: How many there are.
        tokens: How many tokens they have.
    """

    weight: float
    texts: int
    tokens: int


def amount(
    batches: list[Batch], class_weights: Tensor | None = None, ranks: Ranks = ALONE
) -> Amount:
    """Return what a step works on, in all ranks together.

    Args:
        batches: This rank's forward passes.
        class_weights: As for `optimizer_step`.
        ranks: Who shares the step.
    """
    parts = [_amount(batch, class_weights, ranks) for batch in batches]
    totals = [float(sum(column)) for column in zip(*parts, strict=True)]
    if not ranks.is_alone:
        totals = ranks.total(torch.tensor(totals, dtype=torch.float64)).tolist()
    weight, texts, tokens = totals
    return Amount(weight, int(texts), int(tokens))


def _amount(batch: Batch, class_weights: Tensor | None, ranks: Ranks) -> tuple[float, int, int]:
    labels = batch.labels
    if not ranks.is_alone:  # some may have been given a text that stands for none
        labels = labels[(labels != NO_LABEL).reshape(len(labels), -1).all(dim=1)]
    if not len(labels):
        return 0, 0, 0
    if class_weights is None:
        weight: float = len(labels)
    else:
        weight = class_weights[labels.to(class_weights.device)].sum().item()
    return weight, len(labels), len(batch.texts.tokens)


def optimizer_step(
    model: Network,
    batches: list[Batch],
    optimizer: torch.optim.Optimizer,
    max_grad_norm: float | None = None,
    dtype: torch.dtype = torch.float32,
    class_weights: Tensor | None = None,
    passes: Passes | None = None,
    shared: SharedModel | None = None,
    weight: float | None = None,
) -> Tensor:
    """Do one optimizer step over all texts of `batches` and return their mean loss, shape ().

    The loss is summed over the texts and divided once, so several small batches, on one rank or on
    many, give the gradient of one large batch, also where they differ in size. With weights it is
    the weighted mean, as that of torch's CrossEntropyLoss.

    Args:
        model: The classifier.
        batches: Forward passes that share this step; of several ranks this one's parts of them.
        optimizer: Holds the parameters to change.
        max_grad_norm: Largest norm of the gradient over all of them; None: no limit.
        dtype: As for `packed_loss`.
        class_weights: As for `packed_loss`.
        passes: What does the passes, with its own dtype and weights; None: `packed_loss`.
        shared: The model as several ranks train it; None: this process is alone.
        weight: The `amount` of all ranks' texts, where it is known.
    """
    shared = shared or SharedModel(model, ALONE)
    model.train()
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    device = trained[0].device
    if weight is None:
        weight = amount(batches, class_weights, shared.ranks).weight
    world = shared.ranks.world
    total = weight / world  # of gradients that become the mean over the ranks
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for number, batch in enumerate(batches, 1):
        with shared.passing(is_last=number == len(batches)):
            if passes is None:
                loss = packed_loss(shared.of_packed, batch.to(device), total, dtype, class_weights)
            else:
                loss = passes(batch, total)
        losses.append(loss)
        if isinstance(optimizer, MasterAdamW) and (len(batches) > 1 or max_grad_norm is not None):
            optimizer.collect()
    if max_grad_norm is not None:
        nn.utils.clip_grad_norm_(trained, max_grad_norm)
    optimizer.step()
    return shared.ranks.total(torch.stack(losses).sum()) / world
