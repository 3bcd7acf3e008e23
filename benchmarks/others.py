"""The contenders that are not this project: the book's notebook, and transformers with PEFT."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.jobs import LEARNING_RATES, SEED, WEIGHT_DECAY, Contender, Job, Text
from benchmarks.notebook import LinearWithLoRA, NotebookGPT


def padded(texts: list[Text], job: Job) -> Tensor:
    """Return texts as one batch on the job's device, shape (b, t)."""
    width = job.width or max(len(text) for text in texts)
    rows = [text + [job.pad_token] * (width - len(text)) for text in texts]
    return torch.tensor(rows, device=job.device)


def lower_precision(job: Job) -> torch.autocast:
    """Return a context of autocast, in effect where the job computes in bfloat16."""
    return torch.autocast(job.device, torch.bfloat16, enabled=job.precision == "bfloat16")


def build_notebook(job: Job) -> Contender:
    """Return the notebook's network with its loop: no mask, the last position classifies."""
    torch.manual_seed(SEED)
    s = job.shape
    sizes = (s["vocab_size"], s["context_length"], s["n_layer"], s["n_head"], s["n_embd"])
    model = NotebookGPT(*sizes, classes=2)
    if job.method == "lora":
        model.requires_grad_(False)
        adapt_notebook(model, job.rank)
    model.to(job.device)
    rate = LEARNING_RATES[job.method]
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    autocast = lower_precision(job)

    def step(texts: list[Text], labels: list[int]) -> float:
        optimizer.zero_grad()
        with autocast:
            logits = model(padded(texts, job))[:, -1, :]
        loss = F.cross_entropy(logits, torch.tensor(labels, device=job.device))
        loss.backward()
        optimizer.step()
        return loss.item()

    def predict(texts: list[Text]) -> None:
        model.eval()
        with torch.no_grad(), autocast:
            for start in range(0, len(texts), job.batch_size):
                model(padded(texts[start : start + job.batch_size], job))[:, -1, :].cpu()

    return Contender(model, step, predict)


def adapt_notebook(model: nn.Module, rank: int) -> None:
    """Put the notebook's adapter beside every Linear layer of `model`, head included."""
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear):
            a = nn.init.kaiming_uniform_(torch.empty(layer.in_features, rank), a=math.sqrt(5))
            b = torch.zeros(rank, layer.out_features)
            model.set_submodule(name, LinearWithLoRA(layer, a, b, alpha=rank))


def build_transformers(job: Job) -> Contender:
    """Return GPT2ForSequenceClassification, adapted by PEFT for LoRA, with a plain loop.

    Attention is transformers' default (scaled_dot_product_attention), the optimizer its
    Trainer's default (fused AdamW). Dropout is off, as everywhere here. PEFT's adapter is on
    every Conv1D and on the head, as in the other implementations; query, key and value are one
    layer in transformers and share one adapter. bfloat16 is autocast, as the Trainer's `bf16`.
    """
    import transformers

    torch.manual_seed(SEED)
    s = job.shape
    config = transformers.GPT2Config(
        vocab_size=s["vocab_size"],
        n_positions=s["context_length"],
        n_embd=s["n_embd"],
        n_layer=s["n_layer"],
        n_head=s["n_head"],
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=job.pad_token,
        eos_token_id=job.pad_token,
        pad_token_id=job.pad_token,
        use_cache=False,
    )
    config.num_labels = 2
    model: nn.Module = transformers.GPT2ForSequenceClassification(config)
    if job.method == "lora":
        model = adapted_by_peft(model, job.rank)
    model.to(job.device)
    trained = [p for p in model.parameters() if p.requires_grad]
    rate = LEARNING_RATES[job.method]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=WEIGHT_DECAY, fused=True)
    autocast = lower_precision(job)

    def inputs(texts: list[Text]) -> dict[str, Tensor]:
        tokens = padded(texts, job)
        lengths = torch.tensor([len(text) for text in texts], device=job.device)
        real = torch.arange(tokens.shape[1], device=job.device) < lengths[:, None]
        return {"input_ids": tokens, "attention_mask": real.long()}

    def step(texts: list[Text], labels: list[int]) -> float:
        model.train()
        optimizer.zero_grad()
        with autocast:
            loss = model(**inputs(texts), labels=torch.tensor(labels, device=job.device)).loss
        loss.backward()
        optimizer.step()
        return float(loss.item())

    def predict(texts: list[Text]) -> None:
        model.eval()
        with torch.inference_mode(), autocast:
            for start in range(0, len(texts), job.batch_size):
                model(**inputs(texts[start : start + job.batch_size])).logits.cpu()

    return Contender(model, step, predict)


def adapted_by_peft(model: nn.Module, rank: int) -> nn.Module:
    """Return `model` with PEFT's adapter on its Conv1D layers and on its head."""
    import peft

    # A task type would make PEFT train the head in full beside the adapters.
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=["c_attn", "c_proj", "c_fc", "score"],
        fan_in_fan_out=True,
    )
    adapted: nn.Module = peft.get_peft_model(model, config)
    return adapted
