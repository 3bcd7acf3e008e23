"""GPT-2 in the formats of transformers: weights, config.json and tokenizer files."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import tiktoken
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor

from lora_compare.errors import ExportError
from lora_compare.exchange.counterpart import label_settings
from lora_compare.exchange.peft.layout import merged_state
from lora_compare.models.answers.decision import PLAIN, Decision
from lora_compare.models.gpt.network import Classifier, GPTConfig
from lora_compare.models.gpt.tokenizer import END_OF_TEXT, byte_alphabet
from lora_compare.models.gpt.weights import gpt2_state_dict
from lora_compare.project.files import write_json, write_text

HEAD = "score"
"""Name of the classification head, here and in transformers."""

LARGEST_RESIDUAL = 1e-6
"""How far the logits may be from those with the head's own bias, relative to the bias."""


def classifier_state(model: Classifier, decision: Decision = PLAIN) -> dict[str, Tensor]:
    """Return the weights of a GPT2ForSequenceClassification that computes what `model` does.

    An adapter and what makes answers of logits are merged into them; the head's bias, for which
    transformers has no place, becomes part of the last norm's.

    Args:
        model: The classifier; an adapter in use is unmerged afterwards.
        decision: How its probabilities become answers.

    Raises:
        ExportError: transformers cannot classify at that position, or the head's bias cannot
            be moved.

    Checked by tests/parity/test_export.py.
    """
    _require_last_token(model)
    state = merged_state(model, decision)
    gpt = {n.removeprefix("gpt."): t for n, t in state.items() if n.startswith("gpt.")}
    if f"{HEAD}.bias" in state:
        gpt["ln_f.bias"] = norm_with_head_bias(
            state[f"{HEAD}.weight"], state[f"{HEAD}.bias"], gpt["ln_f.bias"]
        )
    stored = {f"transformer.{name}": tensor for name, tensor in gpt2_state_dict(gpt).items()}
    return {**stored, f"{HEAD}.weight": state[f"{HEAD}.weight"]}


def _require_last_token(model: Classifier) -> None:
    if model.position != "last_token":
        raise ExportError(
            f"transformers cannot classify at the position {model.position}.",
            where="params.yaml: classifier.position",
            expected="last_token: GPT2ForSequenceClassification takes the last token of a text",
            actual=model.position,
            next="set classifier.position to last_token, then dvc repro,\n"
            "or export with --format onnx, which takes every position",
        )


def norm_with_head_bias(weight: Tensor, bias: Tensor, beta: Tensor) -> Tensor:
    """Return the bias of the norm below a head which makes the head's own bias superfluous.

    The head computes W (g * x + beta) + b. With beta' = beta + pinv(W) b, W (g * x + beta')
    is the same, if the columns of W can express b.

    Args:
        weight: W, shape (n_classes, d).
        bias: b, shape (n_classes,).
        beta: The norm's bias, shape (d,).

    Returns:
        beta', shape (d,), in the type of `beta`.

    Raises:
        ExportError: W cannot express b, as with more classes than d.
    """
    w, b = weight.double(), bias.double()
    moved: Tensor = (beta.double() + torch.linalg.pinv(w) @ b).to(beta.dtype)
    # Measured on the rounded result: a nearly singular W makes it large, and its rounding too.
    residual = float((w @ moved.double() - w @ beta.double() - b).abs().max())
    if residual > LARGEST_RESIDUAL * max(1.0, float(b.abs().max())):
        raise ExportError(
            "The head's bias cannot become part of the last norm, and transformers' head has none.",
            where="params.yaml: classifier.bias",
            expected=f"a head whose {len(w)} rows of {w.shape[1]} weights can express its bias",
            actual=f"the logits would be off by {residual:.1g}",
            next="set classifier.bias to false, then dvc repro,\nor export with --format onnx",
        )
    return moved


def model_config(shape: GPTConfig, classes: list[str], pad_token: int) -> dict[str, Any]:
    """Return the config.json of a GPT2ForSequenceClassification.

    Args:
        shape: The network's shape.
        classes: Names of the classes, in the order of the logits.
        pad_token: Token id that pads; the last other token of a text is classified.
    """
    return {
        "architectures": ["GPT2ForSequenceClassification"],
        "model_type": "gpt2",
        "dtype": "float32",
        "vocab_size": shape.vocab_size,
        "n_positions": shape.context_length,
        "n_embd": shape.n_embd,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "bos_token_id": pad_token,
        "eos_token_id": pad_token,
        "pad_token_id": pad_token,
        **label_settings(classes),
    }


def write_tokenizer(
    folder: Path, encoding: tiktoken.Encoding, max_length: int, truncation_side: str = "right"
) -> None:
    """Write tokenizer.json and tokenizer_config.json: the same ids as `encoding` gives.

    Args:
        folder: Where to write.
        encoding: A byte-level BPE whose merges follow from the order of its tokens.
        max_length: Tokens to which transformers cuts a text if it is asked to.
        truncation_side: Where it cuts them.

    Checked by tests/parity/test_export.py.
    """
    write_text(folder / "tokenizer.json", fast_tokenizer(encoding).to_str(pretty=True) + "\n")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_length,
        "padding_side": "right",
        "truncation_side": truncation_side,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), END_OF_TEXT),
        # <|endoftext|> inside a message is text like any other.
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    write_json(folder / "tokenizer_config.json", config)


def fast_tokenizer(encoding: tiktoken.Encoding) -> Tokenizer:
    """Return `encoding` as a tokenizer of the library that transformers uses."""
    tokens = [encoding.decode_single_token_bytes(rank) for rank in range(encoding.eot_token)]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    alphabet = byte_alphabet()
    shown = {token: "".join(alphabet[byte] for byte in token) for token in tokens}
    merges = [
        (shown[first], shown[second])
        for first, second in (merged_from(token, ranks) for token in tokens if len(token) > 1)
    ]
    tokenizer = Tokenizer(models.BPE(vocab={shown[t]: r for t, r in ranks.items()}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    assert tokenizer.token_to_id(END_OF_TEXT) == encoding.eot_token
    return tokenizer


def merged_from(token: bytes, ranks: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """Return the two tokens of which `token` is made by its own merge, the last one.

    Args:
        token: A token of at least two bytes.
        ranks: The rank of every token; lower ranks are merged first.
    """
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(a + b, len(ranks)) for a, b in pairwise(parts)]
        best = pairs.index(min(pairs))
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts[0], parts[1]
