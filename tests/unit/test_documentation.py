"""What the documentation shows works as it stands there."""

import re

import pytest

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
