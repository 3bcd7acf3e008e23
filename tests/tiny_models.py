"""Tiny checkpoints of real architectures, as `save_pretrained` of transformers writes them.

`make_model` makes a folder as it would come from the hub: config.json, the weights of the model
below any head, and tokenizer files. Nothing is fetched.
"""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    DebertaV2Tokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    RobertaTokenizer,
    T5Tokenizer,
    XLMRobertaTokenizer,
)

from tiny_tokenizers import (
    VOCABULARY,
    Maker,
    llama,
    mistral,
    modernbert,
    trained,
    unigram,
    with_ends,
    wordpiece,
)

CONTEXT = 64
"""Tokens that each model takes."""


def sample_texts(n: int = 200) -> list[str]:
    """Return texts of unequal length, some of them in other scripts."""
    rng = random.Random(0)
    words = [
        "claim",
        "your",
        "prize",
        "now",
        "see",
        "you",
        "at",
        "home",
        "call",
        "the",
        "office",
        "later",
        "내일",
        "회의",
        "das",
        "Über",
        "7",
        "42",
    ]
    return [" ".join(rng.choices(words, k=rng.randint(1, 10))) for _ in range(n)]


_ENCODER = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "head_dim": 8}


class Architecture(NamedTuple):
    """One family of models.

    Attributes:
        tokenizer: From texts to a tokenizer trained on them.
        config: What its config has other than by default.
    """

    tokenizer: Maker
    config: dict[str, Any]


ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture(wordpiece, _ENCODER),
    # Positions of RoBERTa's family begin behind the id of padding.
    "roberta": Architecture(
        trained(RobertaTokenizer()), {**_ENCODER, "max_position_embeddings": CONTEXT + 2}
    ),
    "distilbert": Architecture(
        wordpiece,
        {
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 48,
            "max_position_embeddings": CONTEXT,
            "initializer_range": 0.2,
        },
    ),
    "deberta-v2": Architecture(
        unigram(DebertaV2Tokenizer, "[PAD] [CLS] [SEP] [UNK] [MASK]"),
        {
            **_ENCODER,
            "relative_attention": True,
            "position_buckets": 16,
            "norm_rel_ebd": "layer_norm",
            "pos_att_type": ["p2c", "c2p"],
            "share_att_key": True,
            "pooler_hidden_size": 32,
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "modernbert": Architecture(
        with_ends(modernbert, "[CLS]:0 $A:0 [SEP]:0"),
        {**_ENCODER, "local_attention": 8, "global_attn_every_n_layers": 2},
    ),
    "xlm-roberta": Architecture(
        unigram(XLMRobertaTokenizer, "<s> <pad> </s> <unk> <mask>"),
        {**_ENCODER, "max_position_embeddings": CONTEXT + 2},
    ),
    "gpt2": Architecture(
        trained(GPT2Tokenizer()),
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": CONTEXT,
            "initializer_range": 0.2,
        },
    ),
    "opt": Architecture(
        with_ends(
            trained(
                GPT2Tokenizer(
                    bos_token="</s>", eos_token="</s>", unk_token="</s>", pad_token="<pad>"
                )
            ),
            "</s>:0 $A:0",
        ),
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "ffn_dim": 48,
            "max_position_embeddings": CONTEXT,
            "word_embed_proj_dim": 16,
            "init_std": 0.2,
            # As OPT-350M alone of its family: the norm behind each block, a narrower embedding.
            "do_layer_norm_before": False,
        },
    ),
    "gpt_neox": Architecture(trained(GPTNeoXTokenizer()), _ENCODER),
    "llama": Architecture(with_ends(llama, "<|begin_of_text|>:0 $A:0"), _DECODER),
    "qwen3": Architecture(trained(Qwen2Tokenizer()), _DECODER),
    "gemma": Architecture(
        with_ends(trained(GemmaTokenizer()), "<bos>:0 $A:0"), {**_DECODER, "head_dim": 16}
    ),
    "mistral": Architecture(with_ends(mistral, "<s>:0 $A:0"), {**_DECODER, "sliding_window": 8}),
    "t5": Architecture(
        unigram(T5Tokenizer, "<pad> </s> <unk>", extra_ids=0),
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 4,
            "n_positions": CONTEXT,
        },
    ),
    "bart": Architecture(
        trained(RobertaTokenizer()),
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "init_std": 0.2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": CONTEXT,
        },
    ),
}
"""The families by their `model_type`."""


def make_model(
    folder: Path,
    architecture: str,
    texts: Iterable[str] | None = None,
    n_classes: int = 2,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """Write a checkpoint to `folder`, and return that.

    Args:
        folder: Where to write.
        architecture: A key of `ARCHITECTURES`.
        texts: What the tokenizer is trained on; None takes `sample_texts()`.
        n_classes: `num_labels` of its config.
        seed: Of its weights.
        changes: Other settings of its config.
    """
    family = ARCHITECTURES[architecture]
    tokenizer = family.tokenizer(sample_texts() if texts is None else texts)
    tokenizer.model_max_length = CONTEXT
    config = AutoConfig.for_model(
        architecture,
        **{
            **family.config,
            **_special_tokens(tokenizer, architecture),
            "vocab_size": max(VOCABULARY, len(tokenizer)),
            **changes,
        },
    )
    config.num_labels = n_classes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModel.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _special_tokens(tokenizer: PreTrainedTokenizerFast, architecture: str) -> dict[str, Any]:
    """Return the ids that the config repeats; those of many generative models leave padding out."""
    pad = None if architecture in ("gpt2", "llama", "qwen3") else tokenizer.pad_token_id
    first = tokenizer.bos_token_id if tokenizer.bos_token else tokenizer.cls_token_id
    last = tokenizer.eos_token_id if tokenizer.eos_token else tokenizer.sep_token_id
    decoder = {"t5": pad, "bart": last}
    ids = {"pad_token_id": pad, "bos_token_id": first, "eos_token_id": last}
    if architecture in decoder:
        ids["decoder_start_token_id"] = decoder[architecture]
    return ids
