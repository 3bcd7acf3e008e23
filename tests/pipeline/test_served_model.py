"""`mlflow models serve` answers over HTTP what `lora-compare classify` prints."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lora_compare.cli import main
from lora_compare.comparison.recommendation import read_recommendation
from lora_compare.params import load_params
from lora_compare.project.files import read_json
from lora_compare.project.paths import Paths
from lora_compare.serving.publication import sync
from mlflow_servers import kill
from small_project import (
    STAGES,
    environment,
    run_stages,
    write_settings,
)
from tracked_project import store_client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HEAD = "  head: {trainable: head, learning_rate: 1.0e-2, weight_decay: 0.1}\n"
TEXTS = ["WINNER no 9, claim £2 now", "home by 6 then, love", 'She said "£ über", ok?', "x " * 3000]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three methods that the stages have trained, shown in a store of its own."""
    folder = write_settings(tmp_path_factory.mktemp("trained"))
    text = (folder / "params.yaml").read_text().replace("\ncomparison:", f"{HEAD}\ncomparison:")
    # So that the champion is one whose model can serve others on its base.
    (folder / "params.yaml").write_text(text.replace("reference: null", "reference: head"))
    run_stages(folder, *STAGES[:-1], "tune@head", "finetune@head", "evaluate@head", "compare")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("LORA_COMPARE_TRACKING", "MLFLOW_TRACKING_URI", "DVC_ROOT"):
            patch.delenv(name, raising=False)
        paths = Paths(folder)
        assert len(sync(paths, load_params(paths.params)).models.new) == 4
    return folder


def store(project: Path) -> str:
    return f"sqlite:///{project / 'mlflow.db'}"


def champion(project: Path) -> str:
    """The method that carries the alias, which is the comparison's."""
    models = store_client(store(project)).search_registered_models()
    (name,) = [model.name for model in models if "champion" in model.aliases]
    chosen = read_recommendation(read_json(Paths(project).metrics("comparison")))
    assert chosen is not None
    assert name == f"lora-compare-messages-gpt2-nano-{chosen.method}"
    return chosen.method


@contextmanager
def served(project: Path, folder: Path, method: str) -> Iterator[str]:
    """Yield the address of `mlflow models serve`, run in `folder`, far from the project."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"]
    command += ["-m", f"models:/lora-compare-messages-gpt2-nano-{method}@champion"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    settings = environment(
        MLFLOW_TRACKING_URI=store(project),
        MLFLOW_DISABLE_TELEMETRY="true",
        PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    )
    settings.pop("PYTHONPATH", None)
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=folder, env=settings, stdout=file, stderr=file, start_new_session=True
        )
    try:
        for _ in range(600):
            assert process.poll() is None, log.read_text()
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=2).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise TimeoutError(log.read_text())
        yield f"http://127.0.0.1:{port}"
    finally:
        kill(process)


@pytest.fixture(scope="module")
def server(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The served champion."""
    with served(project, tmp_path_factory.mktemp("elsewhere"), champion(project)) as address:
        yield address


def post(address: str, body: Any) -> tuple[int, Any]:
    """Send a request; return the status and the JSON of the answer."""
    request = urllib.request.Request(
        f"{address}/invocations",
        json.dumps(body).encode() if not isinstance(body, bytes) else body,
        {"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def classified(project: Path, method: str, texts: list[str]) -> list[dict[str, Any]]:
    """What `lora-compare classify` says, in the shape of the server's answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        result = CliRunner().invoke(main, ["classify", "--method", method, "--json", *texts])
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    return [
        {
            "label": record["label"],
            "probability": record["probability"],
            **{f"probability_{name}": p for name, p in record["probabilities"].items()},
        }
        for record in records
    ]


def assert_same(answer: tuple[int, Any], expected: list[dict[str, Any]]) -> None:
    status, body = answer
    assert status == 200, body
    assert [list(row) for row in body["predictions"]] == [list(row) for row in expected]
    for row, wanted in zip(body["predictions"], expected, strict=True):
        assert row.pop("label") == wanted["label"]
        numbers = {key: value for key, value in wanted.items() if key != "label"}
        assert row == pytest.approx(numbers, rel=0, abs=1e-5)


FORMATS = {
    "inputs": lambda texts: {"inputs": texts},
    "instances": lambda texts: {"instances": texts},
    "split": lambda texts: {"dataframe_split": {"columns": ["text"], "data": [[t] for t in texts]}},
    "records": lambda texts: {"dataframe_records": [{"text": text} for text in texts]},
}


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gets_the_answers_of_classify(project: Path, server: str, form: str) -> None:
    expected = classified(project, champion(project), TEXTS)
    assert_same(post(server, FORMATS[form](TEXTS)), expected)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("method", ["lora", "head"])
def test_a_parameter_of_the_request_chooses_the_adapter(
    project: Path, server: str, form: str, method: str
) -> None:
    answer = post(server, {**FORMATS[form](TEXTS), "params": {"method": method}})
    assert_same(answer, classified(project, method, TEXTS))


def test_requests_for_several_adapters_at_once_get_their_own(project: Path, server: str) -> None:
    methods = ["lora", "head"] * 8
    expected = {method: classified(project, method, TEXTS) for method in set(methods)}
    bodies = [{"inputs": TEXTS, "params": {"method": method}} for method in methods]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda body: post(server, body), bodies))
    for method, answer in zip(methods, answers, strict=True):
        assert_same(answer, expected[method])


BAD = {
    "unknown method": ({"inputs": ["hi"], "params": {"method": "full"}}, "no method 'full' here"),
    "what there is": ({"inputs": ["hi"], "params": {"method": "nobody"}}, "head or lora"),
    "no name": ({"inputs": ["hi"], "params": {"method": 5}}, "Invalid parameters"),
    "null as method": ({"inputs": ["hi"], "params": {"method": None}}, "no method None"),
    "empty text": ({"inputs": ["hi", " "]}, "empty text"),
    "number": ({"inputs": [5]}, "Only text can be classified"),
    "number among texts": ({"inputs": ["hi", 5]}, "text 2 of 2"),
    "null": ({"inputs": [None]}, "Only text can be classified"),
    "number in a frame": ({"dataframe_records": [{"text": 5}]}, "Only text can be classified"),
    "another column first": (
        {"dataframe_split": {"columns": ["label", "text"], "data": [["ham", "hi"]]}},
        "2 columns",
    ),
    "several columns in rows": ({"inputs": [["hi", "you"]]}, "rows of 2 values"),
    "rows of several lengths": ({"inputs": [["hi", "you"], ["there"]]}, "Only text"),
    "several columns as instances": ({"instances": [["hi", "you"]]}, "rows of 2 values"),
    "columns without names": ({"dataframe_split": {"data": [["hi", "you"]]}}, "2 columns"),
    "another column beside it": (
        {"dataframe_records": [{"text": "hi", "more": "you"}]},
        "2 columns",
    ),
    "nothing": ({"inputs": []}, ""),
    "no inputs": ({"texts": ["hi"]}, "inputs"),
    "no JSON": (b"hi", "JSON"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_gets_a_clear_answer_and_the_server_goes_on(server: str, what: str) -> None:
    body, message = BAD[what]
    status, answer = post(server, body)
    assert status == 400
    assert message in answer["message"]
    assert "Traceback" not in json.dumps(answer)
    assert post(server, {"inputs": ["hi"]})[0] == 200
