"""Methods in MLflow's model registry: once each, the best one as champion, loadable anywhere."""

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service import utils as mlflow_utils

from lora_compare.cli import main
from lora_compare.comparison.formats import percent_interval
from lora_compare.evaluation.baselines import save_tfidf, word_model
from lora_compare.evaluation.tfidf import load_tfidf
from lora_compare.models.base import load_base
from lora_compare.models.methods import Trained, load_method
from lora_compare.params import MethodParams, load_params
from lora_compare.project.files import read_json, write_json
from lora_compare.project.seeds import chosen
from lora_compare.serving import publication
from lora_compare.serving.bundles import HUB
from lora_compare.serving.bundles import PACKAGE as FOLDER
from lora_compare.serving.packaging import REQUIREMENTS, requirements
from lora_compare.serving.registry import FIGURES, Registered
from lora_compare.tracking.server import Server
from lora_compare.tracking.store import connect, quietly
from mlflow_servers import real_server
from pipeline.imports import PACKAGE, SOURCE, closure
from served_project import CLASSES, METHODS, write_method, write_models
from small_project import environment
from tracked_project import EXPERIMENT, Lines, TrackedProject

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("no_tracking_settings")]

LORA, FULL = "lora-compare-bundled-gpt2-nano-lora", "lora-compare-bundled-gpt2-nano-full"
TEXTS = ["win a prize now", "see you at seven then"]


class ServedProject(TrackedProject):
    """A synthetic project with real models, and what the registry shows of it."""

    def versions(self) -> list[tuple[str, int]]:
        return sorted((v.name, int(v.version)) for v in self.client().search_model_versions())

    def version(self, name: str, number: int = 1) -> Any:
        return self.client().get_model_version(name, str(number))

    def champions(self) -> list[tuple[str, int]]:
        models = self.client().search_registered_models()
        return [(m.name, int(m.aliases["champion"])) for m in models if "champion" in m.aliases]

    def logged_models(self) -> list[Any]:
        experiment = self.run("pipeline").info.experiment_id
        return list(self.client().search_logged_models([experiment]))

    def everything(self) -> list[Any]:
        models = [(m.model_id, str(m.status), m.tags) for m in self.logged_models()]
        found = self.client().search_model_versions()
        versions = [(made.name, made.version, made.description) for made in found]
        return [sorted(models, key=str), sorted(versions), self.champions()]

    def artifacts(self, name: str) -> Path:
        return Path(unquote(self.version(name).source.removeprefix("file://")))


@pytest.fixture(scope="module", autouse=True)
def own_modules() -> Iterator[None]:
    """Give processes that are started later this project's modules again, not a served model's.

    MLflow puts the code of a model that it loads before everything else.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        yield


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A project with models whose pipeline is yet to be shown in MLflow."""
    root = tmp_path_factory.mktemp("template")
    shutil.copyfile(empty_store, root / "mlflow.db")
    write_models(ServedProject(root).paths)
    return root


def copied(template: Path, root: Path) -> ServedProject:
    """A project with the models and the store of `template`, to change."""
    project = ServedProject(root)
    shutil.copyfile(template / "mlflow.db", root / "mlflow.db")
    shutil.copytree(template / "models", root / "models", dirs_exist_ok=True)
    if (template / "mlartifacts").is_dir():
        shutil.copytree(template / "mlartifacts", root / "mlartifacts")
    # This process has known the files of these runs elsewhere; one for each project has not.
    mlflow_utils._artifact_repos_cache.clear()
    server = Server.configured(project.paths)
    assert server is not None
    with connect(server, EXPERIMENT):  # the store is moved, of which no test here speaks
        return project


@pytest.fixture
def project(tmp_path: Path, template: Path) -> ServedProject:
    return copied(template, tmp_path / "ein Projekt ü")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory, template: Path) -> ServedProject:
    """A project whose pipeline has run; only to be looked at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        project = copied(template, tmp_path_factory.mktemp("registered"))
        result = project.sync()
    assert result.models.new == (f"{FULL} 1", f"{LORA} 1")
    assert result.models.champion == f"{LORA} 1"
    return project


@pytest.fixture
def again(tmp_path: Path, registered: ServedProject) -> ServedProject:
    """A copy of `registered` to change."""
    return copied(registered.paths.root, tmp_path / "again")


def test_sync_registers_every_method_from_files_and_crowns_one(
    registered: ServedProject,
) -> None:
    assert registered.versions() == [(FULL, 1), (LORA, 1)]
    assert registered.champions() == [(LORA, 1)]
    description = registered.version(LORA).description
    interval = f"95 % interval {percent_interval([0.94, 0.97])}"
    assert f"Test accuracy 96.0 % ({interval}), 100 trained parameters" in description
    assert (
        "**Champion of its comparison**: not worse than full by more than 2 points" in description
    )
    assert "Champion" not in registered.version(FULL).description


def test_a_registered_model_and_its_methods_run_show_one_another(registered: ServedProject) -> None:
    for name, method in ((FULL, "full"), (LORA, "lora")):
        run, made = registered.run(method), registered.version(name)
        assert made.run_id == run.info.run_id
        (output,) = run.outputs.model_outputs
        logged = registered.client().get_logged_model(output.model_id)
        assert made.source == logged.artifact_location
        assert (logged.name, str(logged.status)) == (method, "READY")
        assert logged.source_run_id == run.info.run_id
        assert logged.params["training.seeds"] == "[123]"
        shown = json.loads(logged.tags["mlflow.modelVersions"])
        figures = {metric.key: metric.value for metric in logged.metrics}
        assert figures == {key: run.data.metrics[key] for key in FIGURES}
        for key in FIGURES:
            assert len(registered.client().get_metric_history(run.info.run_id, key)) == 1
        assert shown == [{"name": name, "version": 1}]


def test_a_model_is_code_and_safetensors_and_names_no_place_of_this_machine(
    registered: ServedProject,
) -> None:
    folder = registered.artifacts(LORA)
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert not [f for f in files if Path(f).suffix in (".pkl", ".pickle", ".pt", ".pyc", ".bin")]
    assert {"served_model.py", "code/lora_compare/serving/classifiers.py", "MLmodel"} <= files
    models = {f.removeprefix("artifacts/models/") for f in files if f.startswith("artifacts/")}
    content = {"config.json", "model.safetensors", "SHA256SUMS"}
    assert models == {f"{d}/{f}" for d in ("base", "lora") for f in content} | {
        "base/tokenizer.json"
    }
    whole = registered.artifacts(FULL) / "artifacts" / "models"
    assert {path.name for path in whole.iterdir()} == {"base", "full"}
    assert not (whole / "base" / "model.safetensors").exists()
    text = (folder / "MLmodel").read_text()
    assert str(FOLDER.parent) not in text
    pinned = (folder / "requirements.txt").read_text().split()
    assert pinned == [f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS]


IMPORTED_AS = {"ruamel": "ruamel.yaml"}
NOT_WHEN_SERVING = {"huggingface_hub", "bitsandbytes", "pydantic_core", "scipy"}
"""To fetch checkpoints; only for methods in 4 bit; part of pydantic; to choose temperatures."""


def test_exactly_what_a_served_model_imports_is_required() -> None:
    start = SOURCE / PACKAGE / "serving" / "served_model.py"
    imported = set()
    for module in {start, *closure(start)}:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(str(node.module).split(".")[0])
    packages = imported - set(sys.stdlib_module_names) - {PACKAGE} - NOT_WHEN_SERVING
    assert packages >= set(HUB)
    packages -= set(HUB)  # only for a base of transformers
    assert sorted(IMPORTED_AS.get(name, name) for name in packages) == sorted(REQUIREMENTS)
    assert [r.split("==")[0] for r in requirements(["bitsandbytes"])][-1] == "bitsandbytes"


def test_the_signature_names_the_method_and_every_class(registered: ServedProject) -> None:
    with quietly():
        from mlflow.models import Model

        model = Model.load(str(registered.artifacts(LORA)))
        example = model.load_input_example(str(registered.artifacts(LORA)))
    assert model.signature.outputs.input_names() == [
        "label",
        "probability",
        "probability_ham",
        "probability_spam",
    ]
    (parameter,) = model.signature.params
    assert (parameter.name, parameter.default) == ("method", "lora")
    assert all(isinstance(text, str) for text in example)


ONE_TEXT = [
    {"inputs": ["hi"]},
    {"inputs": [["hi"]]},
    {"instances": ["hi"]},
    {"dataframe_split": {"columns": ["text"], "data": [["hi"]]}},
    {"dataframe_split": {"data": [["hi"]]}},
    {"dataframe_records": [{"text": "hi"}]},
]
NO_TEXT = [
    {"inputs": [["hi", "you"]]},
    {"inputs": [["hi", "you"], ["there", "too"]]},
    {"inputs": [["hi", "you"], ["there"]]},
    {"inputs": [[]]},
    {"inputs": []},
    {"inputs": ["hi", 5]},
    {"inputs": [True, "hi"]},
    {"inputs": [None]},
    {"inputs": [{"text": "hi", "more": "you"}]},
    {"inputs": {"text": ["hi"], "more": ["you"]}},
    {"instances": [["hi", "you"]]},
    {"instances": [{"text": "hi", "more": "you"}]},
    {"dataframe_split": {"data": [["hi", "you"]]}},
    {"dataframe_split": {"columns": ["text", "more"], "data": [["hi", "you"]]}},
    {"dataframe_split": {"columns": ["text", "text"], "data": [["hi", "you"]]}},
    {"dataframe_split": {"columns": ["text"], "data": [[["hi", "you"]]]}},
    {"dataframe_split": {"columns": ["text"], "data": []}},
    {"dataframe_records": [{"text": "hi", "more": "you"}]},
    {"dataframe_records": [{"text": "hi"}, {"more": "you"}]},
    {"dataframe_records": [{"text": "hi"}, {"text": 5}]},
    {"dataframe_records": [{"text": None}]},
]


@pytest.fixture(scope="module")
def loaded(registered: ServedProject) -> Any:
    with quietly():
        from mlflow import pyfunc

        return pyfunc.load_model(str(registered.artifacts(LORA)))


def answered(model: Any, body: bytes, kind: str = "application/json") -> tuple[int, str]:
    """The status and the answer that MLflow's server gives to a request."""
    from mlflow.pyfunc.scoring_server import invocations

    try:
        answer = invocations(body, kind, model, model.metadata.get_input_schema())
    except MlflowException as error:
        return error.get_http_status_code(), str(error)
    return answer.status, answer.response


@pytest.mark.parametrize("body", ONE_TEXT, ids=str)
def test_one_text_gets_one_answer_in_every_form(loaded: Any, body: dict[str, Any]) -> None:
    status, answer = answered(loaded, json.dumps(body).encode())
    assert status == 200, answer
    assert len(json.loads(answer)["predictions"]) == 1


@pytest.mark.parametrize("body", NO_TEXT, ids=str)
def test_several_columns_and_what_is_no_text_are_refused_in_every_form(
    loaded: Any, body: dict[str, Any]
) -> None:
    status, answer = answered(loaded, json.dumps(body).encode())
    assert status == 400, answer
    assert "Traceback" not in answer


def test_a_parquet_file_of_two_columns_is_refused(loaded: Any, tmp_path: Path) -> None:
    statuses = []
    for table in ({"text": ["hi"]}, {"text": ["hi"], "more": ["you"]}):
        pd.DataFrame(table).to_parquet(tmp_path / "texts.parquet")
        body = (tmp_path / "texts.parquet").read_bytes()
        statuses.append(answered(loaded, body, "application/vnd.apache.parquet")[0])
    assert statuses == [200, 400]


def test_running_again_and_sync_register_nothing_twice(again: ServedProject) -> None:
    lines, before = Lines(), again.everything()
    again.log("compare", progress=lines)
    result = again.sync()
    assert again.everything() == before
    assert lines.lines == []
    assert (result.models.new, result.models.known) == ((), (f"{FULL} 1", f"{LORA} 1"))


def test_a_model_of_somebody_else_keeps_its_alias(again: ServedProject) -> None:
    client, model = again.client(), "lora-compare-of-another-team"
    client.create_registered_model(model)
    client.create_model_version(model, again.version(FULL).source)
    client.set_registered_model_alias(model, "champion", "1")
    again.log("compare")
    assert again.champions() == [(LORA, 1), (model, 1)]


def test_nothing_is_written_where_nothing_is_new(
    again: ServedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[str] = []
    for name in dir(MlflowClient):
        if name.startswith(("create_", "set_", "update_", "delete_", "log_", "finalize_")):
            monkeypatch.setattr(MlflowClient, name, lambda *a, n=name, **k: writes.append(n))
    again.sync()
    assert writes == []


def test_another_verdict_moves_the_crown_and_registers_nothing(again: ServedProject) -> None:
    file = again.paths.metrics("comparison")
    found = read_json(file)
    found["recommendation"] |= {
        "use": "full",
        "method": "full",
        "why": ["full is better than lora."],
    }
    write_json(file, found)

    again.log("compare")

    assert again.versions() == [(FULL, 1), (LORA, 1)]
    assert again.champions() == [(FULL, 1)]
    assert "full is better than lora" in again.version(FULL).description
    assert "Champion" not in again.version(LORA).description


def test_two_data_sets_in_one_store_have_models_and_champions_of_their_own(
    again: ServedProject,
) -> None:
    text = again.paths.params.read_text()
    text = text.replace("source: bundled", "source: inputs/text/tickets.csv")
    again.paths.params.write_text(text)
    again.params = load_params(again.paths.params)
    again.log("compare")
    other = {name: name.replace("bundled", "tickets") for name in (FULL, LORA)}
    assert again.versions() == sorted([(FULL, 1), (LORA, 1), *((n, 1) for n in other.values())])
    assert sorted(again.champions()) == [(LORA, 1), (other[LORA], 1)]
    model = again.client().get_registered_model(other[LORA])
    assert (model.tags["lora_compare.data"], model.tags["lora_compare.base"]) == (
        "tickets",
        "gpt2-nano",
    )


def test_other_weights_are_a_new_version_which_takes_the_crown(again: ServedProject) -> None:
    write_method(again.paths.base.parent, "lora", METHODS["lora"], 9)
    again.log("compare")
    assert again.versions() == [(FULL, 1), (LORA, 1), (LORA, 2)]
    assert again.champions() == [(LORA, 2)]


def test_the_models_of_a_queued_experiment_are_registered_without_a_crown(
    again: ServedProject, template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = copied(template, tmp_path / "copy")
    write_method(experiment.paths.base.parent, "lora", METHODS["lora"], 9)
    monkeypatch.setenv("DVC_ROOT", str(again.paths.root))
    experiment.log("compare")
    assert again.versions() == [(FULL, 1), (LORA, 1), (LORA, 2)]
    assert again.champions() == [(LORA, 1)]


def test_large_models_wait_to_be_asked_for(
    project: ServedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publication, "UPLOAD_LIMIT", 1000)
    lines = Lines()
    project.log("compare", progress=lines)
    (line,) = lines.lines
    assert f"too large to be registered unasked: {FULL}, {LORA}" in line
    assert "lora-compare register" in line
    assert project.versions() == []

    monkeypatch.chdir(project.paths.root)
    asked = CliRunner().invoke(main, ["register", "--method", "lora"])
    assert asked.exit_code == 0, asked.output
    assert f"registered in MLflow: {LORA} 1; champion: {LORA} 1" in asked.output
    assert project.versions() == [(LORA, 1)]
    again = CliRunner().invoke(main, ["register"])
    assert f"registered in MLflow: {FULL} 1" in again.output
    assert (
        CliRunner()
        .invoke(main, ["register"])
        .output.endswith(f"registered before: {FULL} 1, {LORA} 1\n")
    )


@pytest.mark.parametrize(
    ("method", "message"),
    [("nobody", "nobody"), ("lora", "There is no model of lora that belongs to what is on disk")],
)
def test_register_says_what_there_is_no_model_of(
    project: ServedProject, monkeypatch: pytest.MonkeyPatch, method: str, message: str
) -> None:
    shutil.rmtree(project.paths.model("lora"))
    project.paths.cost("lora").unlink()
    monkeypatch.chdir(project.paths.root)
    result = CliRunner().invoke(main, ["register", "--method", method])
    assert result.exit_code == 2
    assert message in result.output
    assert project.versions() == []


def test_sync_waits_for_the_comparison_and_register_does_not(project: ServedProject) -> None:
    project.paths.metrics("comparison").unlink()
    assert project.sync().models.new == ()
    made = publication.register(project.paths, project.params, "lora")
    assert (made.new, made.champion) == ((f"{LORA} 1",), None)
    assert project.champions() == []


def test_a_registry_that_fails_costs_one_warning_and_no_run(
    project: ServedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise MlflowException("no room for models")

    lines = Lines()
    for request in ("search_registered_models", "log_model_artifacts", "create_model_version"):
        with monkeypatch.context() as patch:
            patch.setattr(MlflowClient, request, refuse)
            project.log("compare", progress=lines)
        assert project.versions() == []
    assert len(lines.lines) == 3
    assert all("no room for models" in line for line in lines.lines)
    assert all("lora-compare sync" in line for line in lines.lines)
    assert project.waiting() == []
    assert project.run("lora").data.metrics["test/accuracy"] == 0.96

    project.log("compare", progress=lines)
    assert lines.lines[3:] == [
        f"registered in MLflow: {FULL} 1, {LORA} 1; champion: {LORA} 1",
    ]
    assert project.versions() == [(FULL, 1), (LORA, 1)]
    # What was cut off is gone; what had come whole was used.
    assert [str(model.status) for model in project.logged_models()] == ["READY", "READY"]
    assert [len(project.run(m).outputs.model_outputs) for m in ("full", "lora")] == [1, 1]


REQUESTS = (
    "search_registered_models",
    "create_registered_model",
    "search_logged_models",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "get_run",
    "log_outputs",
    "create_model_version",
    "set_registered_model_alias",
)


TFIDF = "lora-compare-bundled-gpt2-nano-tfidf"


def write_tfidf(project: ServedProject) -> None:
    texts = [f"win prize {i}" for i in range(9)] + ["see you at seven"] * 9
    model = word_model().fit(texts, [1] * 9 + [0] * 9)
    save_tfidf(project.paths.model("tfidf"), model, CLASSES)


def test_the_baseline_is_registered_and_champion_where_it_beats_every_method(
    project: ServedProject,
) -> None:
    write_tfidf(project)
    file = project.paths.metrics("comparison")
    found = read_json(file)
    record = found["methods"][0] | {"method": "tfidf", "trainable_parameters": 7}
    why = {"use": "tfidf", "kind": "baseline", "fine_tuning_needed": False, "why": ["It is best."]}
    found["recommendation"] |= why
    write_json(file, found | {"baselines": [record]})

    assert project.sync().models.champion == f"{TFIDF} 1"

    assert project.champions() == [(TFIDF, 1)]
    description = project.version(TFIDF).description
    assert "Test accuracy 97.0 %" in description
    assert "**Champion of its comparison**: It is best." in description
    folder = project.artifacts(TFIDF)
    models = sorted(p.relative_to(folder).as_posix() for p in folder.glob("artifacts/models/*/*"))
    names = ("SHA256SUMS", "config.json", "model.safetensors", "vocabulary.json")
    assert models == [f"artifacts/models/tfidf/{name}" for name in names]
    assert not [p for p in folder.rglob("*") if p.suffix in (".pkl", ".pickle")]
    (run,) = [r for r in project.runs() if r.info.run_name == "baseline"]
    assert len(run.outputs.model_outputs) == 1
    before = project.everything()
    assert project.sync().models.new == ()
    assert project.everything() == before
    with quietly():
        import mlflow

        mlflow.set_tracking_uri(project.uri)
        served = mlflow.pyfunc.load_model(f"models:/{TFIDF}@champion")
        answers = served.predict(np.array(TEXTS))
    expected = load_tfidf(project.paths.model("tfidf")).probabilities(TEXTS)
    np.testing.assert_allclose(answers["probability_spam"], expected[:, 1], rtol=0, atol=1e-12)
    assert answers["label"].tolist() == ["spam", "ham"]


def test_the_baseline_is_registered_by_its_name(
    project: ServedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.paths.root)
    missing = CliRunner().invoke(main, ["register", "--method", "tfidf"])
    assert missing.exit_code == 2
    assert "There is no model of tfidf" in missing.output
    write_tfidf(project)
    made = CliRunner().invoke(main, ["register", "--method", "tfidf"])
    assert f"registered in MLflow: {TFIDF} 1" in made.output
    assert project.versions() == [(TFIDF, 1)]


def use_seeds(project: ServedProject) -> None:
    """Give the methods models of three seeds, of which the second is the chosen one."""
    project.use_seeds(3, 1, 7)
    for name, method in METHODS.items():
        shutil.rmtree(project.paths.model(name))
        write_method(project.paths.base.parent, name, method, 3, 1, 7, chosen=1)


def test_a_registered_model_is_the_chosen_seeds_with_its_own_figures(
    project: ServedProject,
) -> None:
    use_seeds(project)
    assert project.sync().models.champion == f"{LORA} 1"
    made = project.version(LORA)
    assert (made.tags["lora_compare.seed"], made.tags["lora_compare.seeds"]) == ("1", "3")
    words = "Trained with the seed 1, one of 3, which has the lowest validation loss of them."
    assert words in made.description
    # Of the three, this one is the second: each has a hundredth less than the one before.
    assert "Test accuracy of this model 95.0 %; mean" in made.description
    assert "method's 3 trainings 96.0 ± 0.4 %" in made.description
    weights = project.artifacts(LORA) / "artifacts" / "models" / "lora" / "model.safetensors"
    assert weights.read_bytes() == (project.paths.trained("lora", 1) / weights.name).read_bytes()
    run = project.run("lora")
    (output,) = run.outputs.model_outputs
    logged = project.client().get_logged_model(output.model_id)
    figures = {metric.key: metric.value for metric in logged.metrics}
    assert figures["test/accuracy"] == pytest.approx(0.95)
    assert run.data.metrics["test/accuracy"] == 0.96
    assert figures["cost/train_seconds"] == run.data.metrics["cost/train_seconds"]
    before = project.everything()
    assert project.sync().models.new == ()
    assert project.everything() == before


@pytest.mark.slow
def test_another_seed_is_registered_on_request_and_is_no_champion(
    project: ServedProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_seeds(project)
    project.sync()
    monkeypatch.chdir(project.paths.root)
    made = CliRunner().invoke(main, ["register", "--method", "lora", "--seed", "7"])
    assert made.exit_code == 0, made.output
    assert f"registered in MLflow: {LORA} 2\n" in made.output
    assert project.champions() == [(LORA, 1)]
    words = "Trained with the seed 7, one of 3, of which 1 has the lowest validation loss."
    assert words in project.version(LORA, 2).description
    again = CliRunner().invoke(main, ["register", "--method", "lora", "--seed", "7"])
    assert f"registered before: {LORA} 2" in again.output
    assert project.sync().models.new == ()

    unknown = CliRunner().invoke(main, ["register", "--method", "lora", "--seed", "8"])
    assert unknown.exit_code == 2
    assert "lora was not trained with the seed 8." in unknown.output
    assert "one of its seeds: 3, 1, 7" in unknown.output
    nameless = CliRunner().invoke(main, ["register", "--seed", "7"])
    assert nameless.exit_code == 2
    assert "name it with --method" in nameless.output


@pytest.mark.slow
@pytest.mark.parametrize("failure", [MlflowException("no"), RuntimeError("surprise")], ids=str)
@pytest.mark.parametrize("request_", REQUESTS)
def test_a_registration_cut_off_at_any_request_is_completed_and_never_doubled(
    project: ServedProject,
    registered: ServedProject,
    monkeypatch: pytest.MonkeyPatch,
    request_: str,
    failure: Exception,
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise failure

    lines = Lines()
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, request_, fail)
        project.log("compare", progress=lines)
    assert len(lines.lines) == 1
    assert str(failure) in lines.lines[0]

    project.sync()
    assert project.versions() == registered.versions()
    assert project.champions() == registered.champions()
    assert [str(model.status) for model in project.logged_models()] == ["READY", "READY"]
    for method in ("full", "lora"):
        assert len(project.run(method).outputs.model_outputs) == 1
    before = project.everything()
    project.sync()
    assert project.everything() == before


def test_models_of_an_earlier_version_of_this_project_are_left_out(project: ServedProject) -> None:
    file = chosen(project.paths.model("full")) / "config.json"
    write_json(file, {**read_json(file), "base": {"sha256": "0"}})
    (project.paths.model("lora") / "seeds.json").unlink()
    assert project.sync().models == Registered()
    assert "lora" not in project.names()


@pytest.mark.slow
def test_a_real_server_takes_the_same_and_sync_changes_nothing(
    tmp_path: Path, template: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "server").mkdir()
    with real_server(tmp_path / "server", empty_store) as (address, _):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        project = copied(template, tmp_path / "project")
        project.uri = address
        project.log_pipeline()
        assert project.versions() == [(FULL, 1), (LORA, 1)]
        assert project.champions() == [(LORA, 1)]
        before = project.everything()
        assert project.sync().models.new == ()
        assert project.everything() == before
        with quietly():
            import mlflow

            mlflow.set_tracking_uri(address)
            model = mlflow.pyfunc.load_model(f"models:/{LORA}@champion")
            assert len(model.predict(np.array(TEXTS))) == len(TEXTS)


ELSEWHERE = """
import importlib.metadata, json, sys
sys.path = [path for path in sys.path if not path.endswith("src")]
known = importlib.metadata.version
def version(name):
    if name == "lora-compare":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.version = version
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/lora-compare-bundled-gpt2-nano-lora@champion")
texts = pandas.DataFrame({"text": json.loads(sys.argv[2])})
answers = {m: model.predict(texts, params={"method": m}) for m in sys.argv[3:]}
import lora_compare
loaded = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"file": lora_compare.__file__, "version": lora_compare.__version__,
    "answers": {m: a.to_dict("list") for m, a in answers.items()}, "loaded": loaded,
    "default": model.predict(texts).to_dict("list")}))
"""


@pytest.mark.slow
def test_one_model_answers_for_every_adapter_far_from_the_project_by_the_code_it_brings(
    project: ServedProject, tmp_path: Path
) -> None:
    head = MethodParams(trainable="head", learning_rate=1.0, weight_decay=0.0)
    project.params = project.params.model_copy(
        update={"methods": {**project.params.methods, "head": head}}
    )
    for path in (project.paths.history, project.paths.cost, project.paths.metrics):
        path("head").parent.mkdir(parents=True, exist_ok=True)
        path("head").write_bytes(path("lora").read_bytes())
    write_method(project.paths.base.parent, "head", Trained("head"), 3)
    project.sync()
    expected = {
        method: load_method(
            chosen(project.paths.model(method)), load_base(project.paths.base)
        ).probabilities(TEXTS)
        for method in ("lora", "head")
    }
    # Nothing of the project is there any more, but for what the registry keeps.
    for name in ("models", "params.yaml", "dvc.yaml", "metrics", "reports", "stages", "data"):
        target = project.paths.root / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    away = tmp_path / "away"
    away.mkdir()

    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, project.uri, json.dumps(TEXTS), "lora", "head"],
        cwd=away,
        env={k: v for k, v in environment().items() if k != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["file"].startswith(str(project.artifacts(LORA)))
    assert said["version"] == "unknown"
    assert said["default"] == said["answers"]["lora"]
    for method, probabilities in expected.items():
        answer = said["answers"][method]
        chances = np.array([answer["probability_ham"], answer["probability_spam"]]).T
        np.testing.assert_allclose(chances, probabilities, rtol=0, atol=1e-6)
        assert answer["label"] == [("ham", "spam")[row.argmax()] for row in probabilities]
    assert {IMPORTED_AS.get(name, name) for name in said["loaded"]} >= set(REQUIREMENTS)
    assert "huggingface_hub" not in said["loaded"]
