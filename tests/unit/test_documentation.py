"""What the documentation shows works as it stands there."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import pytest
from click.testing import CliRunner
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

from docs.params import meanings_of, sections, settings_page
from lora_compare.cli import main
from lora_compare.data.sources import load_corpus
from lora_compare.data.splits import split
from lora_compare.evaluation.baselines import character_model
from lora_compare.params import LoraParams, Params, Section, load_params, read_yaml
from lora_compare.project.corpus import make_corpus
from lora_compare.project.lineage import Pipeline
from lora_compare.project.paths import Paths
from lora_compare.project.progress import SILENT
from small_project import ROOT

PAGES = sorted((ROOT / "docs").rglob("*.md"))
SECTIONS = Params.model_fields.keys() - {"methods"}
SLOW = {"bundled_corpus.md-0"}
"""Examples that take half a minute."""

EXAMPLES = [
    pytest.param(code, id=name, marks=pytest.mark.slow if name in SLOW else ())
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
    for name in [f"{page.name}-{number}"]
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_in_python_run(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(code, {})
    printed = capsys.readouterr().out.splitlines()
    for shown in re.findall(r"print\(.*\)  # (.*)", code):
        assert shown in printed


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *PAGES]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def snippets() -> Iterator[Any]:
    """Yield what pages show of params.yaml in whole sections."""
    for page in [ROOT / "README.md", *PAGES]:
        for number, text in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(), re.S)):
            if isinstance(found := YAML(typ="safe").load(text), dict) and {*found} <= {*SECTIONS}:
                yield pytest.param(found, id=f"{page.name}-{number}")


@pytest.mark.parametrize("shown", [*snippets()])
def test_sections_that_are_shown_can_take_the_place_of_those_in_params(
    shown: dict[str, Any], tmp_path: Path
) -> None:
    whole = {**read_yaml(ROOT / "params.yaml"), **shown}
    paths = Paths(tmp_path)
    with paths.params.open("w") as file:
        YAML(typ="safe").dump(whole, file)
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    assert Pipeline(paths, load_params(paths.params)).defaults() == {}


README = (ROOT / "README.md").read_text()


def settings(section: type[Section], path: str = "") -> Iterator[tuple[str, tuple[FieldInfo, str]]]:
    """Yield every setting below `section` with its text, by its path; sections are none."""
    meanings = dict(meanings_of(section))
    for name, field in section.model_fields.items():
        inner = list(sections(field.annotation))
        for found in inner:
            yield from settings(found, f"{path}{name}.")
        if not inner:
            yield path + name, (field, meanings[name])


SETTINGS = dict(settings(Params))


def test_the_page_of_settings_is_the_one_that_the_models_make() -> None:
    text = (ROOT / "docs" / "params.md").read_text()
    assert text == settings_page(), "python docs/params.py writes it"
    rows = re.findall(r"^\| `(\w+)` \| .+ \| .* \| (.*) \|$", text, re.M)
    assert sorted(name for name, _ in rows) == sorted(p.split(".")[-1] for p in SETTINGS)
    assert [name for name, meaning in rows if not meaning.endswith(".")] == []


def edges(text: str, step: float) -> Iterator[tuple[float, bool]]:
    """Yield numbers at the edges of the range that a setting's text says, and whether it has them.

    Args:
        text: The setting's text.
        step: What lies between an edge that is allowed and one that is not.
    """
    for low in map(float, re.findall(r"(\d+) (?:or more|to \d)", text)):
        yield from ((low, True), (low - step, False))
    for low in map(float, re.findall(r"above (\d+)", text)):
        yield from ((low, False), (low + step, True))
    highest = re.findall(r"\d+ to (\d+)", text)
    for high in map(float, highest):
        yield from ((high, True), (high + step, False))
    limits = re.findall(r"below (\d+)", text)
    for high in map(float, limits):
        yield from ((high, False), (high - step, True))
    if not highest + limits:
        yield 1e9, True


NUMBERS = [
    path
    for path, (field, text) in SETTINGS.items()
    if re.search(r"\b(int|float)\b", str(field)) and "any number" not in text
]


@pytest.mark.parametrize("path", NUMBERS)
def test_a_number_is_taken_in_the_range_that_its_text_says_and_not_beyond(path: str) -> None:
    field, text = SETTINGS[path]
    kind = float if "float" in str(field.annotation) else int
    adapter = TypeAdapter(Annotated[field.annotation, "", *field.metadata])
    found = set()
    for number, is_allowed in edges(text, 1e-9 if kind is float else 1):
        value: object = kind(number)
        for _ in range(str(field.annotation).count("dict[")):
            value = {"layer": value}
        value = [value] if path.endswith("seeds") else value
        found.add(is_allowed)
        with nullcontext() if is_allowed else pytest.raises(ValidationError):
            adapter.validate_python(value)
    assert found == {True, False}, "its text says no range"


def test_the_pages_on_adapters_explain_every_setting() -> None:
    page = (ROOT / "docs" / "adapters.md").read_text()
    assert [name for name in LoraParams.model_fields if f"`{name}`" not in page] == []


def test_the_readme_has_every_wing_in_its_tree_and_is_short() -> None:
    wings = {path.parent.name for path in (ROOT / "src" / "lora_compare").glob("*/__init__.py")}
    tree = README[README.index("## The tree") :]
    assert sorted(wing for wing in wings if not re.search(rf"^  {wing}/? ", tree, re.M)) == []
    assert len(tree.split("```")[1].splitlines()) <= 45
    assert len(README.splitlines()) <= 180
    prose = re.sub(r"<!-- results -->.*<!-- /results -->", "", README, flags=re.S)
    assert [line for line in prose.splitlines() if len(line) > 100] == []


def test_every_package_is_there_for_a_reason_that_is_written_down() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [project["dependencies"], *project["optional-dependencies"].values()]
    packages = {re.split(r"[\[<>=]", package)[0] for group in wanted for package in group}
    page = (ROOT / "docs" / "decisions" / "0001-dependencies.md").read_text()
    named = {
        name for row in re.findall(r"^\|(.*)\|", page, re.M) for name in re.split(r"[ |,]+", row)
    }
    assert sorted(packages - named) == []


def test_every_hook_before_a_commit_is_a_program_of_the_environment() -> None:
    hooks = re.findall(r"entry: .venv/bin/(\S+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert {"ruff", "mypy", "lint-imports", "codespell", "check-yaml"} <= set(hooks)
    assert [name for name in hooks if not (Path(sys.executable).parent / name).exists()] == []


def test_words_are_spelled_and_settings_of_tools_are_yaml_and_toml() -> None:
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.splitlines()
    files = [name for name in names if (ROOT / name).is_file()]
    for program, ending in (("codespell", ""), ("check-yaml", ".yaml"), ("check-toml", ".toml")):
        command = [Path(sys.executable).parent / program, *(n for n in files if n.endswith(ending))]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_text_that_classify_is_shown_with_is_spam_beyond_doubt() -> None:
    help_page = CliRunner().invoke(main, ["classify", "--help"]).output
    shown = re.findall(r'lora-compare classify "(.*)"', help_page)
    assert shown == re.findall(r'lora-compare classify "(.*)"', (ROOT / "README.md").read_text())
    params = load_params(ROOT / "recipes" / "default.yaml")
    messages, _ = load_corpus(params.data, Paths(ROOT), SILENT)
    corpus = make_corpus(messages["label"], messages["text"])
    frames, metrics = split(corpus, params.split)
    train = frames["train"]
    # The quick baseline stands for the methods: what it only just calls spam, they may call ham.
    model = character_model().fit(train["Text"], train["Label"])
    spam = list(metrics["classes"]).index("spam")
    assert (model.predict_proba(shown)[:, spam] > 0.9).all()
