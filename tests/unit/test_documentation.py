"""What the documentation shows works as it stands there."""

import re

import pytest

from lora_compare import params
from small_project import ROOT

PAGES = sorted((ROOT / "docs").rglob("*.md"))
EXAMPLES = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
]


@pytest.mark.parametrize("code", EXAMPLES)
def test_examples_in_python_run(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(code, {})
    printed = capsys.readouterr().out.splitlines()
    for shown in re.findall(r"print\(.*\)  # (.*)", code):
        assert shown in printed


def test_links_between_pages_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *PAGES]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


README = (ROOT / "README.md").read_text()

SECTIONS = [
    params.DataParams,
    params.SplitParams,
    params.ModelParams,
    params.PretrainingParams,
    params.ClassifierParams,
    params.TrainingParams,
    params.MethodParams,
    params.LoraParams,
    params.TrackingParams,
]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_the_readme_explains_every_parameter(section: type[params.Section]) -> None:
    table = "\n".join(line for line in README.splitlines() if line.startswith("| `"))
    for name, field in section.model_fields.items():
        inner = [s for s in SECTIONS if s.__name__ in str(field.annotation)]
        assert inner or re.search(rf"[`.]{name}`", table), f"{section.__name__}.{name}"


def test_the_pages_on_adapters_explain_every_setting() -> None:
    page = (ROOT / "docs" / "adapters.md").read_text()
    assert [name for name in params.LoraParams.model_fields if f"`{name}`" not in page] == []


def test_the_readmes_tree_names_every_module() -> None:
    tree = README[README.index("## The tree") :]
    source = ROOT / "src" / "lora_compare"
    names = {path.stem for path in source.glob("[a-z]*.py")}
    names |= {path.parent.name for path in source.glob("*/__init__.py")}
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", tree)) == []
    assert len(README.splitlines()) < 250
