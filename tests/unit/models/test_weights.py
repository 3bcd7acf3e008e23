"""Weights in and out: whole, equal to the bit, and refused with what is wrong with them."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lora_compare.compute.seeding import seeded
from lora_compare.errors import CheckpointError
from lora_compare.models.gpt.network import CONFIGS, GPT, GPTConfig, initialise
from lora_compare.models.gpt.weights import gpt2_state_dict, load_gpt2_state
from lora_compare.models.weights import load_state, save_state

CONFIG = GPTConfig(vocab_size=11, context_length=7, n_layer=2, n_head=2, n_embd=6)


def state_of(config: GPTConfig = CONFIG) -> dict[str, Tensor]:
    with seeded(0):
        return dict(initialise(GPT(config)).state_dict())


def stored(config: GPTConfig = CONFIG) -> dict[str, Tensor]:
    return gpt2_state_dict(state_of(config))


def shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def refusal(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_gpt2_state(path, CONFIG)
    assert caught.value.where == str(path)
    return caught.value


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.safetensors"


def test_gpt2_layout_and_back_is_the_same_state(path: Path) -> None:
    save_file(stored(), path)
    assert_equal(load_gpt2_state(path, CONFIG), state_of())
    assert_equal(gpt2_state_dict(load_gpt2_state(path, CONFIG)), stored())


def test_loaded_state_fits_the_network_by_assignment(path: Path) -> None:
    save_file(stored(), path)
    with torch.device("meta"):
        gpt = GPT(CONFIG)
    gpt.load_state_dict(load_gpt2_state(path, CONFIG), assign=True)
    assert_equal(dict(gpt.state_dict()), state_of())
    assert all(parameter.requires_grad for parameter in gpt.parameters())


def test_loaded_tensors_do_not_live_in_the_file(path: Path) -> None:
    save_file(stored(), path)
    state = load_gpt2_state(path, CONFIG)
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert_equal(state, state_of())
    pointers = {tensor.untyped_storage().data_ptr() for tensor in state.values()}
    assert len(pointers) == len(state)


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "gpt2-nano"])
def test_layout_of_every_size_has_the_published_parameter_count(name: str) -> None:
    published = {"small": 124_439_808, "medium": 354_823_168, "large": 774_030_080}
    published["xl"] = 1_557_611_200
    with torch.device("meta"):
        layout = gpt2_state_dict(dict(GPT(CONFIGS[name]).state_dict()))
    assert sum(tensor.numel() for tensor in layout.values()) == published[name.split("-")[1]]
    width = CONFIGS[name].n_embd
    assert layout["h.0.attn.c_attn.weight"].shape == (width, 3 * width)
    assert layout["h.0.mlp.c_fc.weight"].shape == (width, 4 * width)
    assert len(layout) == 12 * CONFIGS[name].n_layer + 4


def test_prefix_masks_and_tied_head_are_tolerated(path: Path) -> None:
    tensors = {f"transformer.{name}": tensor for name, tensor in stored().items()}
    for index in range(CONFIG.n_layer):
        tensors[f"transformer.h.{index}.attn.bias"] = torch.ones(1, 1, 7, 7, dtype=torch.bool)
        tensors[f"transformer.h.{index}.attn.masked_bias"] = torch.tensor(float("-inf"))
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].clone()
    save_file(tensors, path, {"format": "pt"})
    assert_equal(load_gpt2_state(path, CONFIG), state_of())


def test_head_that_is_not_tied_is_refused(path: Path) -> None:
    save_file(stored() | {"lm_head.weight": stored()["wte.weight"] + 1}, path)
    assert "lm_head.weight: differs from wte.weight" in refusal(path).actual


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(path: Path, dtype: torch.dtype) -> None:
    narrow = {name: tensor.to(dtype) for name, tensor in stored().items()}
    save_file(narrow, path)
    loaded = load_gpt2_state(path, CONFIG)
    assert all(tensor.dtype == torch.float32 for tensor in loaded.values())
    assert_equal(gpt2_state_dict(loaded), {name: t.float() for name, t in narrow.items()})


def without_bias(tensors: dict[str, Tensor]) -> None:
    del tensors["h.1.mlp.c_fc.bias"]


def with_extra(tensors: dict[str, Tensor]) -> None:
    tensors["h.2.ln_1.weight"] = torch.ones(6)


def with_wrong_shape(tensors: dict[str, Tensor]) -> None:
    tensors["h.0.mlp.c_fc.weight"] = torch.ones(24, 6)


def with_double(tensors: dict[str, Tensor]) -> None:
    tensors["wpe.weight"] = tensors["wpe.weight"].double()


def with_integers(tensors: dict[str, Tensor]) -> None:
    tensors["ln_f.bias"] = torch.ones(6, dtype=torch.int64)


def with_nan(tensors: dict[str, Tensor]) -> None:
    tensors["h.0.attn.c_attn.weight"][0, :2] = torch.tensor([float("nan"), float("inf")])


def with_both_prefixes(tensors: dict[str, Tensor]) -> None:
    tensors["transformer.wte.weight"] = tensors["wte.weight"].clone()


@pytest.mark.parametrize(
    ("spoil", "difference"),
    [
        (without_bias, "h.1.mlp.c_fc.bias: missing"),
        (with_extra, "h.2.ln_1.weight: not part of the model"),
        (with_wrong_shape, "h.0.mlp.c_fc.weight: shape (24, 6), the model's is (6, 24)"),
        (with_double, "wpe.weight: type F64, allowed are F32, F16 and BF16"),
        (with_integers, "ln_f.bias: type I64"),
        (with_nan, "h.0.attn.c_attn.weight: 2 of 108 numbers NaN or infinite"),
        (with_both_prefixes, "wte.weight: stored twice"),
    ],
)
def test_difference_is_named_by_its_key(
    path: Path, spoil: Callable[[dict[str, Tensor]], None], difference: str
) -> None:
    tensors = stored()
    spoil(tensors)
    save_file(tensors, path)
    error = refusal(path)
    assert error.actual.startswith(difference)
    assert "1 difference." in error.what


def test_checkpoint_of_another_size_shows_ten_differences_and_their_number(path: Path) -> None:
    save_file(stored(GPTConfig(13, 7, 3, 2, 8)), path)
    error = refusal(path)
    # Every tensor of the two common blocks and outside of them differs in shape; a block is extra.
    assert "40 differences" in error.what
    lines = error.actual.splitlines()
    assert len(lines) == 11
    assert lines[-1] == "... and 30 more"
    assert lines[0] == "h.2.attn.c_attn.bias: not part of the model"


def test_several_kinds_of_difference_are_reported_together(path: Path) -> None:
    tensors = stored()
    without_bias(tensors)
    with_extra(tensors)
    with_double(tensors)
    save_file(tensors, path)
    assert len(refusal(path).actual.splitlines()) == 3


class Bomb:
    """Unpickling this would leave a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_is_refused_without_being_opened(path: Path, tmp_path: Path, protocol: int) -> None:
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "bomb"), protocol))
    assert "safetensors" in refusal(path).what
    assert not (tmp_path / "bomb").exists()


def test_torch_archive_is_refused_as_what_it_is(path: Path) -> None:
    torch.save(stored(), path)
    assert "torch.save" in refusal(path).actual


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"\x80\x04\x95", "a pickle"),
        (b"", "an empty file"),
        (b"{}", "starts with"),
        ((2).to_bytes(8, "little") + b"{", "header"),
        ((1 << 60).to_bytes(8, "little") + b"{}", "header"),
        ((4).to_bytes(8, "little") + b"{a}}", "JSON"),
    ],
)
def test_other_files_are_refused(path: Path, content: bytes, named: str) -> None:
    path.write_bytes(content)
    assert named in refusal(path).actual


@pytest.mark.parametrize("size", [-1, -100, 200, 9])
def test_truncated_file_is_refused(path: Path, size: int) -> None:
    save_file(stored(), path)
    path.write_bytes(path.read_bytes()[:size])
    assert "not a whole safetensors file" in refusal(path).what


def test_trailing_bytes_are_refused(path: Path) -> None:
    save_file(stored(), path)
    path.write_bytes(path.read_bytes() + b"x")
    assert "not a whole safetensors file" in refusal(path).what


def test_missing_file_is_refused(path: Path) -> None:
    assert "not there" in refusal(path).what


def test_saved_state_comes_back_and_the_library_reads_the_same(path: Path) -> None:
    save_state(path, state_of())
    assert_equal(load_state(path, shapes(state_of())), state_of())
    assert_equal(load_file(path), state_of())


def test_equal_tensors_give_equal_bytes_in_any_order(path: Path, tmp_path: Path) -> None:
    state = state_of()
    save_state(path, state)
    save_state(tmp_path / "other", dict(reversed(state.items())))
    assert (tmp_path / "other").read_bytes() == path.read_bytes()


def test_saving_detaches_and_lays_out_in_rows(path: Path) -> None:
    tensor = torch.arange(6.0, requires_grad=True).reshape(2, 3).T
    save_state(path, {"a": tensor})
    assert torch.equal(load_state(path, {"a": (3, 2)})["a"], tensor.detach())


def test_one_key_of_metadata_is_kept_and_two_are_a_bug(path: Path) -> None:
    save_state(path, {"a": torch.ones(1)}, {"format": "pt"})
    with safetensors.safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    with pytest.raises(AssertionError):
        save_state(path, {"a": torch.ones(1)}, {"format": "pt", "by": "me"})


def test_saved_file_is_as_readable_as_any_other(path: Path, tmp_path: Path) -> None:
    save_state(path, {"a": torch.ones(1)})
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_failed_save_leaves_the_old_file_and_nothing_else(path: Path) -> None:
    save_state(path, {"a": torch.ones(1)})
    before = path.read_bytes()
    shared = torch.ones(2)
    with pytest.raises(RuntimeError, match="share memory"):
        save_state(path, {"a": shared, "b": shared})
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_own_weights_are_validated_like_a_checkpoint(path: Path) -> None:
    save_state(path, {"a": torch.ones(2), "b": torch.tensor([float("nan")])})
    with pytest.raises(CheckpointError) as caught:
        load_state(path, {"a": (3,), "c": (1,)})
    assert caught.value.actual.splitlines() == [
        "c: missing",
        "b: not part of the model",
        "a: shape (2,), the model's is (3,)",
    ]
    with pytest.raises(CheckpointError, match="b: 1 of 1 "):
        load_state(path, {"a": (2,), "b": (1,)})
