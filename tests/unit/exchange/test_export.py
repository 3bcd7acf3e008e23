"""Exports: what they refuse, what they replace, and the parts that need no other program."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from interchange import CLASSES, ENCODING, make_small_base, make_source
from lora_compare import lora
from lora_compare.errors import ExportError
from lora_compare.exchange.export import Format, export
from lora_compare.exchange.gpt import GPTCounterpart
from lora_compare.exchange.peft.gpt import joined, parted
from lora_compare.exchange.peft.names import Adapter, short_names, with_pattern
from lora_compare.exchange.transformers import fast_tokenizer, norm_with_head_bias
from lora_compare.models.gpt.network import GPT, Classifier
from lora_compare.params import LoraParams
from lora_settings import lora_settings


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    make_small_base(folder)
    return folder


def refused(base: Path, kind: Format, settings: LoraParams | None, out: Path, **head: Any) -> str:
    with pytest.raises(ExportError) as caught:
        export(make_source(base, settings, **head), kind, out)
    assert not out.exists()
    assert not list(out.parent.glob(f".{out.name}*"))
    return str(caught.value)


@pytest.mark.parametrize("kind", ["peft", "merged"])
@pytest.mark.parametrize("position", ["first", "mean", "last_position"])
def test_a_position_that_transformers_does_not_know_is_refused(
    base_folder: Path, tmp_path: Path, kind: Format, position: str
) -> None:
    message = refused(base_folder, kind, lora_settings(), tmp_path / "x", position=position)
    assert "classifier.position" in message
    assert "--format onnx" in message


def test_a_method_without_adapter_goes_to_the_merged_format(
    base_folder: Path, tmp_path: Path
) -> None:
    message = refused(base_folder, "peft", None, tmp_path / "x")
    assert "lora-compare export --method m --format merged" in message


def test_an_adapter_of_the_head_alone_is_refused(base_folder: Path, tmp_path: Path) -> None:
    settings = lora_settings(target_modules=["score"])
    assert "--format merged" in refused(base_folder, "peft", settings, tmp_path / "x")


def test_a_bias_that_the_head_cannot_express_is_refused(base_folder: Path, tmp_path: Path) -> None:
    classes = [f"class {i}" for i in range(25)]  # of a model of width 24
    message = refused(base_folder, "merged", None, tmp_path / "x", classes=classes)
    assert "classifier.bias" in message
    export(make_source(base_folder, None, classes=classes, bias=False), "merged", tmp_path / "x")


def test_the_heads_bias_moves_below_a_head_that_is_nearly_singular() -> None:
    weight = torch.randn(2, 24, generator=torch.Generator().manual_seed(1))
    beta, bias = torch.zeros(24), torch.tensor([0.3, -0.7])
    torch.testing.assert_close(weight @ norm_with_head_bias(weight, bias, beta), bias)
    weight[1] = weight[0] + 1e-6 * weight[1]
    with pytest.raises(ExportError, match="off by"):
        norm_with_head_bias(weight, bias, beta)


def test_an_earlier_export_is_replaced_by_the_same_bytes(base_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "exports" / "m-peft"
    contents = []
    for _ in range(2):
        export(make_source(base_folder, lora_settings()), "peft", folder)
        files = sorted(p for p in folder.rglob("*") if p.is_file())
        contents.append({p.relative_to(folder).as_posix(): p.read_bytes() for p in files})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "base/config.json",
        "base/model.safetensors",
        "export.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert [p.name for p in folder.parent.iterdir()] == ["m-peft"]
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("export_first", [True, False])
def test_a_folder_with_files_of_others_is_kept(
    base_folder: Path, tmp_path: Path, export_first: bool
) -> None:
    source = make_source(base_folder, lora_settings())
    if export_first:
        export(source, "merged", tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ExportError, match=r"notes\.txt"):
        export(source, "merged", tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_failing_export_leaves_the_earlier_one(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "x"
    source = make_source(base_folder, lora_settings())
    export(source, "merged", folder)
    before = {p: p.read_bytes() for p in folder.iterdir()}

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(GPTCounterpart, "write_tokenizer", fail)
    with pytest.raises(OSError, match="no space"):
        export(source, "merged", folder)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_the_missing_extra_is_named(
    base_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    message = refused(base_folder, "onnx", None, tmp_path / "x")
    assert 'pip install "lora-compare[onnx]"' in message


def test_an_adapter_of_a_published_checkpoint_names_it(base_folder: Path, tmp_path: Path) -> None:
    source = make_source(base_folder, lora_settings())
    origin = {"kind": "checkpoint", "repository": "openai-community/gpt2", "revision": "607a30d"}
    published = {**source.description, "weights": "pretrained", "source": origin}
    lines = export(dataclasses.replace(source, description=published), "peft", tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "openai-community/gpt2"
    assert config["revision"] == "607a30d"
    assert not (tmp_path / "base").exists()
    assert '"openai-community/gpt2",\n    revision="607a30d",' in lines


def test_exported_settings_use_short_names(base_folder: Path, tmp_path: Path) -> None:
    settings = lora_settings(
        r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "c_fc", "h.0.mlp.c_proj"]
    )
    export(make_source(base_folder, settings), "peft", tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    expected = {
        "r": 2,
        "lora_alpha": 4,
        "rank_pattern": {"c_attn": 4},
        "alpha_pattern": {"c_attn": 8},
        "target_modules": ["c_attn", "c_fc", "h.0.mlp.c_proj"],
        "modules_to_save": ["ln_f", "score"],
    }
    assert {key: config[key] for key in expected} == expected


def test_short_names_mean_the_chosen_paths_only() -> None:
    paths = [f"t.h.{i}.{name}" for i in (1, 11) for name in ("attn.c_proj", "mlp.c_proj")]
    assert short_names(paths, paths) == ["c_proj"]
    assert short_names(paths[1::2], paths) == ["mlp.c_proj"]
    assert short_names(paths[:1], paths) == ["h.1.attn.c_proj"]
    assert with_pattern(dict(zip(paths, (3, 8, 3, 3), strict=True))) == (3, {"h.1.mlp.c_proj": 8})


def layer(r: int, scale: float = 2.0) -> Adapter:
    return Adapter(torch.randn(r, 6), torch.randn(4, r), scale, torch.randn(4))


@pytest.mark.parametrize("ranks", [(1, 2, 3), (2, None, 2), (None, None, 1)])
def test_joined_adapters_come_apart_again(ranks: tuple[int | None, ...]) -> None:
    torch.manual_seed(1)
    parts = [None if r is None else layer(r) for r in ranks]
    weights = [torch.randn(4, 6) for _ in ranks]
    whole = joined(parts, weights)
    assert whole.r == sum(r or 0 for r in ranks)
    for part, again, weight in zip(parts, parted(whole, len(ranks)), weights, strict=True):
        assert again.magnitude is not None
        if part is None:
            assert not again.b.any()
            torch.testing.assert_close(again.magnitude, weight.norm(dim=1))
        else:
            assert torch.equal(again.a, part.a)
            assert torch.equal(again.b, part.b)
            assert torch.equal(again.magnitude, part.magnitude)


def test_parted_adapters_join_again_with_one_shared_a() -> None:
    torch.manual_seed(1)
    whole = Adapter(torch.randn(3, 6), torch.randn(12, 3), 0.5)
    again = joined(list(parted(whole, 3)), [torch.randn(4, 6)] * 3)
    assert torch.equal(again.a, whole.a)
    assert torch.equal(again.b, whole.b)


def test_an_untrained_adapter_keeps_its_rank() -> None:
    parts = parted(Adapter(torch.randn(3, 6), torch.zeros(12, 3), 0.5), 3)
    assert [part.r for part in parts] == [3, 3, 3]


def test_scales_of_parts_are_kept_in_the_joined_update() -> None:
    torch.manual_seed(1)
    parts = [layer(2, scale=1.0), layer(2, scale=0.25), layer(1, scale=3.0)]
    whole = joined(list(parts), [torch.randn(4, 6)] * 3)
    expected = torch.cat([part.scale * part.b @ part.a for part in parts])
    torch.testing.assert_close(whole.scale * whole.b @ whole.a, expected)


@pytest.mark.parametrize("rslora", [False, True])
def test_alpha_gives_back_the_scale(rslora: bool) -> None:
    assert layer(8, scale=2.0).alpha(use_rslora=False) == 16
    assert isinstance(layer(8, scale=2.0).alpha(use_rslora=False), int)
    assert layer(8).alpha(rslora) / (8**0.5 if rslora else 8) == pytest.approx(2.0)


def test_tokenizer_files_give_the_same_ids() -> None:
    generator = torch.Generator().manual_seed(1)
    letters = "aeinotw  \n\t.,'1£é字😀|<>"
    tokenizer = fast_tokenizer(ENCODING)
    for _ in range(300):
        picks = torch.randint(len(letters), (40,), generator=generator)
        text = "".join(letters[i] for i in picks)
        assert tokenizer.encode(text).ids == ENCODING.encode_ordinary(text)
    assert tokenizer.token_to_id("<|endoftext|>") == ENCODING.eot_token


def test_the_bare_state_has_the_names_and_values_of_a_plain_model(base_folder: Path) -> None:
    source = make_source(base_folder, lora_settings(bias="all"))
    model = source.classifier.model
    plain = Classifier(GPT(model.gpt.config), len(CLASSES), "last_token")
    assert list(lora.bare_state_dict(model)) == list(plain.state_dict())
    lora.merge(model)
    plain.load_state_dict(lora.bare_state_dict(model))
    lora.unmerge(model)
    tokens, lengths = torch.tensor([[1, 2, 3]]), torch.tensor([3])
    torch.testing.assert_close(plain(tokens, lengths), model(tokens, lengths))
    with lora.disabled(model):
        state = lora.bare_state_dict(model)
        assert all(torch.equal(state[f"gpt.{n}"], t) for n, t in source.base.items())
