"""The pipeline with adapters on models of transformers: refused by name first, trained the same."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lora_compare import cli
from lora_compare.project.files import read_json, sha256
from small_project import make_project, run, run_stages
from tiny_models import make_model

NAME = "inputs/models/tiny"


def small(folder: Path, architecture: str, target_modules: str) -> Path:
    make_model(folder / NAME, architecture)
    return make_project(folder, name=NAME, target_modules=target_modules)


def check(folder: Path) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(cli.main, ["check"])


def test_layers_that_a_model_lacks_are_refused_with_those_that_it_has(tmp_path: Path) -> None:
    folder = small(tmp_path, "bert", "[q_proj]")
    expected = (
        "methods.lora.lora.target_modules: no module is called q_proj; "
        "expected some of dense, key, query, value; embeddings:"
    )
    checked = check(folder)
    run_stages(folder, "download", "split", "base_model")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # Of all methods: full fine-tuning does not train for an hour first.
        trained = run("finetune", "full")
    for result in (checked, trained):
        assert result.exit_code == 2
        assert expected in " ".join(result.output.split())
        assert "Traceback" not in result.output
    assert not (folder / "models" / "full").exists()


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2"])
def test_the_stages_train_an_adapter_to_the_same_bytes(architecture: str, tmp_path: Path) -> None:
    sums = []
    for place in ("first", "again"):
        folder = small(tmp_path / place, architecture, "default")
        assert check(folder).exit_code == 0
        stages = ("download", "split", "base_model", "tune@lora", "finetune@lora", "evaluate@lora")
        run_stages(folder, *stages)
        (weights,) = (folder / "models" / "lora").glob("seed-*/model.safetensors")
        sums.append([sha256(weights), sha256(folder / "metrics" / "lora.json")])
    assert sums[0] == sums[1]
    figures = read_json(folder / "metrics" / "lora.json")
    state = read_json(folder / "metrics" / "lora_cost.json")["training_state_bytes_optimizer"]
    assert 8 * figures["trainable_parameters"] < state < 9 * figures["trainable_parameters"]
