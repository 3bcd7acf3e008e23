"""What the documentation shows works as it stands there."""

import re

import pytest
from click.testing import CliRunner

from lora_compare import params
from lora_compare.cli import main
from lora_compare.data.sources import load_corpus
from lora_compare.data.splits import split
from lora_compare.evaluation.baselines import character_model
from lora_compare.params import load_params
from lora_compare.project.corpus import make_corpus
from lora_compare.project.paths import Paths
from lora_compare.project.progress import SILENT
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
    for page in [*ROOT.glob("*.md"), *PAGES]:
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
