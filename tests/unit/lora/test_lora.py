"""LoRA on any model: sizes, starting point, training, merging, switching, taking off."""

import copy
import hashlib

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from lora_compare.errors import CheckpointError, ParamsError
from lora_compare.lora import (
    LoRALayer,
    activate,
    active_adapter,
    adapted_layers,
    adapter_names,
    adapter_tensors,
    count,
    disabled,
    inject,
    load_adapter_tensors,
    merge,
    merge_and_unload,
    parameter_groups,
    unload,
    unmerge,
)
from lora_compare.models.gpt.network import CONFIGS, GPT, Classifier
from lora_compare.params import gpt2_paths
from lora_settings import lora_settings

# By formula, r = 16 on every Linear layer and the head: Hu et al. 2021, section 4.2.
WITH_HEAD = {
    "gpt2-small": 2_666_528,
    "gpt2-medium": 7_094_304,
    "gpt2-large": 13_291_552,
    "gpt2-xl": 22_144_032,
}

KINDS = {
    "lora": {},
    "biases": {"bias": "all"},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "gaussian": {"init_lora_weights": "gaussian"},
    "dora and pissa": {"use_dora": True, "init_lora_weights": "pissa"},
    "embedding": {"target_modules": ["words", "first"]},
    "dora on the embedding": {"target_modules": ["words"], "use_dora": True},
    "saved head": {"modules_to_save": ["head"]},
}
"""One adapter of every kind; each must pass the same tests."""


class Small(nn.Module):
    """An embedding, three linear layers, one of them a Conv1D, with a norm between, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.first = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.second = nn.Linear(8, 8, bias=False)
        self.third = Conv1D(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(self.words(ids)))
        y: torch.Tensor = self.head(torch.tanh(self.third(self.second(self.norm(x)))))
        return y


def small() -> Small:
    torch.manual_seed(0)
    return Small().double()


def ids() -> torch.Tensor:
    return torch.arange(22).reshape(2, 11) % 11


def train_a_little(model: nn.Module, steps: int = 5) -> list[float]:
    torch.manual_seed(1)
    x, y = torch.randint(0, 11, (32,)), torch.randint(0, 2, (32,))
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.05, 0.01, None))
    losses = []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def adapted(kind: str, name: str = "default") -> Small:
    """Return a small model with a trained adapter of that kind."""
    model = small()
    torch.manual_seed(2)
    inject(model, lora_settings(**KINDS[kind]), name)
    train_a_little(model)
    return model


def sha256_of(tensors: dict[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(("name", "parameters"), WITH_HEAD.items())
def test_adapters_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    with torch.device("meta"):
        model = Classifier(GPT(CONFIGS[name]), 2, "last_token")
        model.requires_grad_(False)
        assert count(model).trainable == 0
        inject(model, lora_settings(r=16, lora_alpha=16))
    assert count(model).trainable == parameters


def test_without_the_head_gpt2_small_trains_2654208_parameters() -> None:
    with torch.device("meta"):
        model = Classifier(GPT(CONFIGS["gpt2-small"]), 2, "last_token")
        inject(model, lora_settings(r=16, lora_alpha=16, exclude_modules=["score"]))
    assert count(model).trainable == 2_654_208
    assert count(model).total == 124_441_346 + 2_654_208


@pytest.mark.parametrize("kind", KINDS)
def test_training_starts_from_exactly_the_same_outputs(kind: str) -> None:
    model = small()
    before = model(ids())
    inject(model, lora_settings(**KINDS[kind]))
    assert torch.equal(model(ids()), before)


@pytest.mark.parametrize("kind", KINDS)
def test_training_learns_and_leaves_the_frozen_weights_as_they_were(kind: str) -> None:
    model = small()
    digest = sha256_of(model.state_dict())
    torch.manual_seed(2)
    inject(model, lora_settings(**KINDS[kind]))
    losses = train_a_little(model)
    assert losses[-1] < losses[0]
    with disabled(model):
        bare = {n.replace(".base_layer", ""): t for n, t in model.state_dict().items()}
    base = {n: t for n, t in bare.items() if ".adapters." not in n}
    assert sha256_of(base) == digest


@pytest.mark.parametrize("kind", KINDS)
def test_merged_layer_computes_what_the_adapter_does(kind: str) -> None:
    model = adapted(kind)
    expected = model(ids())
    merged = merge_and_unload(model)
    assert merged is model
    assert not any(isinstance(m, LoRALayer) for m in model.modules())
    assert model.state_dict().keys() == small().state_dict().keys()
    torch.testing.assert_close(model(ids()), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_unmerging_brings_back_every_bit_and_merging_twice_equals_once(kind: str) -> None:
    model = adapted(kind)
    state, expected = copy.deepcopy(model.state_dict()), model(ids())
    merge(model)
    once = model(ids())
    merge(model)
    assert torch.equal(model(ids()), once)
    unmerge(model)
    unmerge(model)
    assert torch.equal(model(ids()), expected)
    assert sha256_of(model.state_dict()) == sha256_of(state)


@pytest.mark.parametrize("kind", KINDS)
def test_unload_gives_the_same_object_with_its_own_layers_back(kind: str) -> None:
    model = small()
    first, before = model.first, model(ids())
    inject(model, lora_settings(**KINDS[kind]))
    train_a_little(model)
    assert not torch.equal(model(ids()), before)
    assert unload(model) is model
    assert model.first is first
    assert torch.equal(model(ids()), before)
    assert sha256_of(model.state_dict()) == sha256_of(small().state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_on_one_base_switch_and_are_disabled_bit_for_bit(kind: str) -> None:
    model, alone = adapted("lora", "one"), adapted(kind)
    base, one = small()(ids()), model(ids())
    torch.manual_seed(2)
    inject(model, lora_settings(**KINDS[kind]), "two")
    assert adapter_names(model) == ["one", "two"]
    train_a_little(model)
    two = model(ids())
    assert torch.equal(two, alone(ids()))
    activate(model, "one")
    assert active_adapter(model) == "one"
    assert torch.equal(model(ids()), one)
    with disabled(model):
        assert torch.equal(model(ids()), base)
    assert torch.equal(model(ids()), one)
    merge(model)
    activate(model, "two")
    assert torch.equal(model(ids()), two)
    assert count(model).trainable == count(alone).trainable


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_adapter_loads_bit_for_bit(kind: str) -> None:
    model, other = adapted(kind), small()
    inject(other, lora_settings(**KINDS[kind]), initialise=False)
    load_adapter_tensors(other, copy.deepcopy(adapter_tensors(model)))
    assert torch.equal(other(ids()), model(ids()))


def test_tensors_that_do_not_fit_are_refused_and_named() -> None:
    model = adapted("lora")
    tensors = copy.deepcopy(adapter_tensors(model))
    before = model(ids())
    tensors["first.lora_A"] = torch.zeros(3, 6)
    tensors["fourth.lora_A"] = tensors.pop("second.lora_A")
    with pytest.raises(CheckpointError, match=r"(?s)second.*missing.*fourth.*first.*\(3, 6\)"):
        load_adapter_tensors(model, tensors)
    assert torch.equal(model(ids()), before)


def test_the_count_is_in_pefts_wording() -> None:
    model = small()
    inject(model, lora_settings())
    assert str(count(model)) == "trainable params: 112 || all params: 404 || trainable%: 27.7228"


def test_a_copied_model_is_independent() -> None:
    model = adapted("biases")
    before, twin = model(ids()), copy.deepcopy(model)
    train_a_little(twin)
    assert torch.equal(model(ids()), before)
    activate(twin, None)
    assert torch.equal(twin(ids()), small()(ids()))


def test_initial_adapters_have_pefts_bound() -> None:
    model = nn.Sequential(nn.Linear(400, 10))
    inject(model, lora_settings(r=8))
    tensors = adapter_tensors(model)
    assert tensors["0.lora_A"].abs().max().item() == pytest.approx(400**-0.5, rel=0.01)
    assert tensors["0.lora_B"].abs().max() == 0


def test_gaussian_adapters_start_with_standard_deviation_one_over_r() -> None:
    model = nn.Sequential(nn.Linear(4000, 10))
    inject(model, lora_settings(r=8, init_lora_weights="gaussian"))
    tensors = adapter_tensors(model)
    assert tensors["0.lora_A"].std().item() == pytest.approx(1 / 8, rel=0.02)
    assert tensors["0.lora_B"].abs().max() == 0


def test_dropout_acts_on_the_adapters_input_while_training_only() -> None:
    model = small()
    inject(model, lora_settings(lora_dropout=0.5))
    train_a_little(model)
    assert not torch.equal(model(ids()), model(ids()))
    model.eval()
    assert torch.equal(model(ids()), model(ids()))


@pytest.mark.parametrize(("use_rslora", "scale"), [(False, 4.0), (True, 8.0)])
def test_the_scale_is_alpha_over_r_or_its_root(use_rslora: bool, scale: float) -> None:
    model = small()
    inject(model, lora_settings(r=4, lora_alpha=16, use_rslora=use_rslora))
    assert {layer.adapters["default"].scale for _, layer in adapted_layers(model)} == {scale}


def test_loraplus_moves_b_and_vectors_faster() -> None:
    model = small()
    inject(model, lora_settings(target_modules=["words", "first"], bias="lora_only", use_dora=True))
    slow, fast = parameter_groups(model, 0.1, 0.01, 4.0)
    assert (slow["lr"], fast["lr"]) == (0.1, 0.4)
    names = {id(p): n for n, p in model.named_parameters()}
    assert {names[id(p)].removeprefix("first.") for p in fast["params"]} == {
        "adapters.default.lora_B",
        "adapters.default.lora_magnitude",
        "base_layer.bias",
    }
    assert len(slow["params"]) + len(fast["params"]) == 7


def nano() -> Classifier:
    with torch.device("meta"):
        return Classifier(GPT(CONFIGS["gpt2-nano"]), 2, "last_token")


def paths(**changes: object) -> list[str]:
    with torch.device("meta"):
        return inject(nano(), lora_settings(r=2, **changes), aliases=gpt2_paths)


ALL = [
    f"gpt.h.{i}.{layer}"
    for i in range(4)
    for layer in (
        "attn.q_proj",
        "attn.k_proj",
        "attn.v_proj",
        "attn.c_proj",
        "mlp.c_fc",
        "mlp.c_proj",
    )
] + ["score"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ALL),
        (
            {"target_modules": ["c_attn"]},
            [p for p in ALL if p[-6:] in ("q_proj", "k_proj", "v_proj")],
        ),
        ({"target_modules": ["c_proj"]}, [p for p in ALL if p.endswith("c_proj")]),
        ({"target_modules": ["mlp.c_proj"]}, [p for p in ALL if p.endswith("mlp.c_proj")]),
        ({"target_modules": r".*\.h\.[02]\..*c_fc"}, ["gpt.h.0.mlp.c_fc", "gpt.h.2.mlp.c_fc"]),
        ({"target_modules": r"transformer\.h\.1\.attn\.c_attn"}, ALL[6:9]),
        ({"target_modules": ["wte", "wpe"]}, ["gpt.wte", "gpt.wpe"]),
        ({"exclude_modules": ["score", "c_attn"]}, [p for p in ALL if "c_" in p]),
        ({"exclude_modules": r".*attn.*"}, [p for p in ALL if "attn" not in p]),
        ({"layers_to_transform": [1, 3]}, ALL[6:12] + ALL[18:24]),
        ({"layers_to_transform": 3, "target_modules": ["q_proj"]}, ["gpt.h.3.attn.q_proj"]),
        ({"modules_to_save": ["score"]}, ALL[:-1]),
        ({"modules_to_save": ["score"], "exclude_modules": ["score"]}, ALL[:-1]),
        ({"modules_to_save": ["h.3", "score"]}, ALL[:18]),
    ],
)
def test_settings_choose_layers_as_documented(settings: dict, expected: list[str]) -> None:
    assert paths(**settings) == expected


def test_patterns_give_single_layers_their_own_rank_and_scale() -> None:
    model = nano()
    with torch.device("meta"):
        settings = lora_settings(
            r=2,
            rank_pattern={"c_attn": 3, r"h\.0\.mlp\.c_fc": 5},
            alpha_pattern={"score": 8.0, "q_proj": 9.0},
        )
        inject(model, settings, aliases=gpt2_paths)
    shapes = {path: layer.adapters["default"] for path, layer in adapted_layers(model)}
    ranks = {path: len(adapter.lora_A) for path, adapter in shapes.items()}
    assert ranks["gpt.h.3.attn.v_proj"] == 3
    assert (ranks["gpt.h.0.mlp.c_fc"], ranks["gpt.h.1.mlp.c_fc"]) == (5, 2)
    assert (shapes["score"].scale, shapes["gpt.h.2.attn.q_proj"].scale) == (4.0, 3.0)


def test_patterns_that_give_one_layer_different_values_are_refused_in_any_order() -> None:
    for patterns in ({"c_proj": 2, "mlp.c_proj": 6}, {"mlp.c_proj": 6, "c_proj": 2}):
        settings = lora_settings(rank_pattern=patterns)
        with pytest.raises(ParamsError, match=r"mlp\.c_proj different values"):
            inject(nano(), settings, aliases=gpt2_paths)
    settings = lora_settings(r=4, rank_pattern={"c_proj": 2, "mlp.c_proj": 2})
    inject(model := nano(), settings, aliases=gpt2_paths)
    ranks = {len(x.adapters["default"].lora_A) for p, x in adapted_layers(model) if "c_proj" in p}
    assert ranks == {2}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"target_modules": ["c_attn", "query"]}, "No module is called query"),
        (
            {"target_modules": ["query"]},
            "c_attn, c_fc, .*, score, v_proj; embeddings: wpe, wte",
        ),
        ({"target_modules": "q_proj"}, r"write a list: \[q_proj\]"),
        ({"target_modules": ["score"], "modules_to_save": ["score"]}, "No module is called score"),
        ({"target_modules": ["score"], "exclude_modules": ["score"]}, "No module is called score"),
        ({"exclude_modules": ["nothing"]}, "lora.exclude_modules"),
        ({"modules_to_save": ["nothing"]}, "lora.modules_to_save"),
        ({"modules_to_save": ["nothing"]}, "others: attn, gpt, h, ln_1, ln_2, ln_f, mlp"),
        (
            {"target_modules": "default"},
            "(?s)no default for this.*all-linear, or some of c_at",
        ),
        ({"rank_pattern": {"nothing": 4}}, "lora.rank_pattern"),
        ({"alpha_pattern": {"wte": 4.0}}, "lora.alpha_pattern"),
        ({"layers_to_transform": [0, 4]}, "(?s)no such blocks.*0, 1, 2, 3.*4"),
        ({"layers_to_transform": 0, "target_modules": ["score"]}, "nothing: no blocks"),
        ({"rank_pattern": {"score": 129}}, "rank is larger than the layer score"),
        ({"init_lora_weights": "pissa", "rank_pattern": {"score": 3}}, "at most 2 for .* pissa"),
        ({"init_lora_weights": "olora", "target_modules": ["wte"]}, "cannot start from its weight"),
    ],
)
def test_settings_that_do_not_fit_are_refused_and_nothing_is_changed(
    settings: dict, expected: str
) -> None:
    model = nano()
    with pytest.raises(ParamsError, match=expected):
        inject(model, lora_settings(r=2, **settings), aliases=gpt2_paths)
    assert not any(isinstance(m, LoRALayer) for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("name", ["", "a.b", "items", "default"])
def test_an_adapters_name_must_be_free_and_usable(name: str) -> None:
    model = adapted("lora")
    with pytest.raises(ParamsError, match="cannot be called"):
        inject(model, lora_settings(), name)


def test_an_unknown_adapter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ParamsError, match=r"(?s)no adapter 'other'.*default"):
        activate(adapted("lora"), "other")


def test_a_weight_that_others_use_too_is_refused() -> None:
    model = small()
    model.more = nn.Embedding(11, 6, padding_idx=0)
    model.more.weight = model.words.weight
    for settings in ({"target_modules": ["more", "first"]}, {"modules_to_save": ["more"]}):
        with pytest.raises(ParamsError, match=r"(?s)words shares its weight with more.*next:"):
            inject(model, lora_settings(**settings))
    assert not list(adapted_layers(model))
