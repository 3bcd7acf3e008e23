"""A project whose base model is one of transformers: DVC's run of it, and what follows."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dvc_runs import dvc, ran
from lora_compare.models.base import load_base
from lora_compare.models.methods import load_method
from lora_compare.project.files import read_json
from lora_compare.project.paths import Paths
from lora_compare.project.seeds import chosen
from small_project import copy_project, environment
from tiny_models import make_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TEXTS = ["WINNER no 7, claim £1 now", "home by 9 then, love"]
OFF = {"LORA_COMPARE_TRACKING": "off"}
MODEL = "inputs/models/mine"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of a tiny BERT after its first run, with its runs in its own store."""
    folder = copy_project(tmp_path_factory.mktemp("hub") / "project", name=MODEL)
    with (folder / "inputs" / "text" / "messages.csv").open(encoding="utf-8") as file:
        texts = [row["message"] for row in csv.DictReader(file)]
    make_model(folder / MODEL, "bert", texts=texts, n_classes=5)
    dvc(folder, "repro")
    return folder


def call(folder: Path, *arguments: str) -> str:
    """Run the command line in `folder`, and return what it printed."""
    command = [sys.executable, "-m", "lora_compare", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def classified(folder: Path, method: str) -> np.ndarray:
    """Return what `classify` says of TEXTS, probabilities of ham and spam, shape (n, 2)."""
    lines = call(folder, "classify", "--method", method, "--json", *TEXTS).splitlines()
    answers = [json.loads(line)["probabilities"] for line in lines]
    return np.array([[answer["ham"], answer["spam"]] for answer in answers])


def test_nothing_runs_twice_and_another_model_runs_all_that_depends_on_it(project: Path) -> None:
    assert ran(dvc(project, "repro", **OFF)) == []
    assert read_json(project / "models" / "base" / "config.json")["kind"] == "hub"
    figures = read_json(project / "metrics" / "lora.json")
    method = read_json(chosen(Paths(project).model("lora")) / "config.json")
    # The head is trained in full beside the adapter, as in PEFT.
    assert figures["trainable_parameters"] == method["trainable_parameters"]
    assert method["trainable_parameters"] > 32 * 2 + 2
    assert read_json(project / "metrics" / "baseline.json")["untuned"]["test"]["n"] > 0
    copy = project.parent / "other"
    shutil.copytree(project, copy, symlinks=True)
    make_model(copy / MODEL, "bert", n_classes=2, seed=1)
    assert set(ran(dvc(copy, "repro", "base_model", **OFF))) == {"base_model"}
    changed = read_json(copy / "models" / "base" / "config.json")["sha256"]
    assert changed != read_json(project / "models" / "base" / "config.json")["sha256"]


def test_an_exported_adapter_comes_back_as_a_method(project: Path) -> None:
    call(project, "export", "--format", "peft")
    call(project, "import", "exports/lora-peft", "--name", "theirs")
    assert "finetune@theirs" in ran(dvc(project, "repro", **OFF))
    np.testing.assert_allclose(
        classified(project, "theirs"), classified(project, "lora"), rtol=0, atol=1e-6
    )
    own, theirs = (read_json(project / "metrics" / f"{name}.json") for name in ("lora", "theirs"))
    for key in ("trainable_parameters", "total_parameters"):
        assert own[key] == theirs[key], key
    assert own["test"]["accuracy"] == theirs["test"]["accuracy"]


SERVE = """
import json, sys
sys.path = [path for path in sys.path if not path.endswith("src")]
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/lora-compare-messages-mine-lora/1")
texts = pandas.DataFrame({"text": json.loads(sys.argv[2])})
answers = model.predict(texts).to_dict("list")
import lora_compare
print(json.dumps({"file": lora_compare.__file__, "answers": answers}))
"""


def test_mlflow_serves_it_far_from_the_project(project: Path, tmp_path: Path) -> None:
    call(project, "sync")
    command = [sys.executable, "-c", SERVE, f"sqlite:///{project / 'mlflow.db'}", json.dumps(TEXTS)]
    kept = {k: v for k, v in environment().items() if k != "PYTHONPATH"}
    done = subprocess.run(command, cwd=tmp_path, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    code = Path(said["file"])  # MODEL/code/lora_compare/__init__.py
    assert code.is_relative_to(project / "mlartifacts") or code.is_relative_to(project / "mlruns")
    lines = (code.parents[2] / "requirements.txt").read_text(encoding="utf-8").splitlines()
    libraries = [line.partition("==")[0] for line in lines]
    assert {"transformers", "psutil", "tokenizers"} <= set(libraries)
    paths = Paths(project)
    classifier = load_method(chosen(paths.model("lora")), load_base(paths.base))
    expected = classifier.probabilities(TEXTS)
    answers = np.array([said["answers"][f"probability_{name}"] for name in ("ham", "spam")]).T
    np.testing.assert_allclose(answers, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(classified(project, "lora"), expected, rtol=0, atol=1e-6)
