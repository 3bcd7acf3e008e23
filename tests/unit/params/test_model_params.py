"""`model.name`: a GPT, a model on the hub, or a folder; and which version of it."""

from pathlib import Path

import pytest
import yaml
from huggingface_hub.utils import HFValidationError, validate_repo_id
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lora_compare.params import CONFIGS, ModelParams
from lora_compare.params.fit import describe_misfits

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
COMMIT = "86b5e0934494bd15c9632b12f734a8a67f723594"


def model(name: object, revision: object = None) -> ModelParams:
    values = {"name": name, "revision": revision, "weights": "pretrained"}
    return ModelParams.model_validate(values)


def mistake(name: object, revision: object = None) -> str:
    with pytest.raises(ValidationError) as caught:
        model(name, revision)
    (problem,) = caught.value.errors()
    return ".".join(map(str, problem["loc"])) + ": " + problem["msg"]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_gpts_are_named_as_ever(name: str) -> None:
    assert model(name).kind == "gpt"
    assert "revision: Value error, only a model on the hub" in mistake(name, COMMIT)


@pytest.mark.parametrize("revision", [COMMIT, "main", "v1.0", "refs/pr/7", "step-1000_a"])
def test_a_model_on_the_hub_has_an_organisation_and_a_revision(revision: str) -> None:
    params = model("google-bert/bert-base-uncased", revision)
    assert (params.kind, params.revision) == ("hub", revision)


def test_a_model_on_the_hub_without_a_revision_says_where_to_find_one() -> None:
    message = mistake("google-bert/bert-base-uncased")
    assert message.startswith("revision: ")
    assert "https://huggingface.co/google-bert/bert-base-uncased/commits" in message


@pytest.mark.parametrize(
    "revision", ["", " ", "-main", "a b", "a..b", "/main", "main/", "a//b", "a?b", "main\n", 7]
)
def test_a_revision_that_git_could_not_have_is_refused(revision: object) -> None:
    assert mistake("google-bert/bert-base-uncased", revision).startswith("revision: ")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("inputs/models/my-bert", "inputs/models/my-bert"),
        ("inputs/models/my-bert/", "inputs/models/my-bert"),
        ("./inputs/models//org/한국어 모형", "inputs/models/org/한국어 모형"),
    ],
)
def test_a_folder_is_a_plain_path_in_inputs_models(written: str, read: str) -> None:
    params = model(written)
    assert (params.kind, params.name) == ("folder", read)
    assert "only a model on the hub" in mistake(written, "main")


@pytest.mark.parametrize(
    "name",
    [
        "inputs/models",
        "inputs/models/",
        "inputs/text/my-bert",
        "inputs/my-bert",
        "inputs/models/../../secrets",
        "inputs/models/a/../../../..",
        "/inputs/models/my-bert",
        "../inputs/models/my-bert",
        "~/models/my-bert",
        "C:\\models\\my-bert",
        "a/b/c",
        "inputs/models/a\0b",
        "inputs/models/a\nb",
    ],
)
def test_a_folder_elsewhere_is_refused(name: str) -> None:
    assert "copy it there and name it inputs/models/NAME" in mistake(name)


def test_an_architecture_decides_by_itself_how_it_classifies() -> None:
    values = yaml.safe_load((RECIPES / "quick.yaml").read_text(encoding="utf-8"))
    values["model"]["name"] = "inputs/models/my-bert"
    assert describe_misfits(values) == []
    values["classifier"] |= {"position": "mean", "bias": False}
    values["training"]["compile"] = True
    assert [mistake.partition(" for ")[0] for mistake in describe_misfits(values)] == [
        "classifier.position: last_token",
        "classifier.bias: true",
        "training.compile: false",
    ]
    values["model"]["name"] = "gpt2-nano"
    assert describe_misfits(values) == []


def test_a_name_alone_is_none_of_the_hub_s() -> None:
    assert "google-bert/bert-base-uncased" in mistake("bert-base-uncased")
    assert mistake("gpt2-smal").endswith("; did you mean gpt2-small?")
    assert mistake("").startswith("name: ")
    assert mistake(3).startswith("name: ")


@given(st.from_regex(r"[A-Za-z.é-][\w.\n-]{0,4}/[\w.\n-]{1,5}(\.git)?", fullmatch=True))
def test_names_are_those_that_the_hub_allows(name: str) -> None:
    try:
        validate_repo_id(name)
    except HFValidationError:
        assert mistake(name).startswith("name: ")
    else:
        assert model(name, "main").kind == "hub"
