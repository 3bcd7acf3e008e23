"""MLflow's pages in a real browser, on a store that the pipeline filled, as a user meets them."""

import hashlib
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from browser.conftest import watched_page
from dvc_runs import dvc
from lora_compare.comparison.recommendation import read_recommendation
from lora_compare.params import Params, load_params
from lora_compare.project.paths import Paths
from lora_compare.tracking.runs import method_params
from lora_compare.tracking.view import VIEW_NAME, differing
from small_project import copy_project, environment

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PATIENCE = 60_000
"""Milliseconds that MLflow's pages have to show something on a busy machine."""

COMMAND = (sys.executable, "-c", "from lora_compare.cli import main; main()")


@dataclass(frozen=True)
class Shown:
    """A project whose runs MLflow shows.

    Attributes:
        folder: The project.
        address: The page that `lora-compare ui` printed.
    """

    folder: Path
    address: str

    @property
    def params(self) -> Params:
        return load_params(self.folder / "params.yaml")

    def metrics(self, name: str) -> dict:
        return json.loads((self.folder / "metrics" / f"{name}.json").read_text())


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_well(port: int, server: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, "the server has ended"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise TimeoutError("MLflow does not start")


@pytest.fixture(scope="session")
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project in which `dvc repro` ran: that of `--project`, or a small one made here."""
    if given := request.config.getoption("--project"):
        return Path(given).resolve()
    folder = copy_project(tmp_path_factory.mktemp("project"))
    dvc(folder, "repro")
    return folder


@pytest.fixture(scope="session")
def shown(project: Path) -> Iterator[Shown]:
    """`lora-compare ui` in that project."""
    port = free_port()
    server = subprocess.Popen(
        [*COMMAND, "ui", "--port", str(port)],
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "")
        address = next(line.strip() for line in lines if "http://" in line)
        wait_until_well(port, server)
        yield Shown(project, address)
    finally:
        os.killpg(server.pid, 9)
        server.wait()
        server.stdout.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """A page that asks nothing beyond this machine; what MLflow's console says is MLflow's."""
    yield from watched_page(chromium, errors=False)


@pytest.fixture
def picture(request: pytest.FixtureRequest, page: Page):
    """Return what keeps a picture of the page, where `--screenshots` names a folder for it."""
    folder = request.config.getoption("--screenshots")

    def take(name: str) -> None:
        if folder:
            page.mouse.move(0, 0)
            page.wait_for_timeout(1500)  # for what slides and fades
            page.screenshot(path=Path(folder) / f"{name}.png")

    return take


@pytest.fixture
def runs(page: Page, shown: Shown) -> Page:
    """The page of the experiment as `lora-compare ui` opens it, its pipeline expanded."""
    page.set_default_timeout(PATIENCE)
    page.set_viewport_size({"width": 1400, "height": 900})
    page.goto(shown.address)
    parent = row(page, "pipeline ")
    expect(parent).to_be_visible(timeout=PATIENCE)
    close_assistant(page)
    parent.get_by_role("button").click()
    for method in shown.params.methods:
        expect(row(page, method)).to_be_visible(timeout=PATIENCE)
    return page


def close_assistant(page: Page) -> None:
    """Close MLflow's assistant, which opens a moment after a browser's first visit."""
    panel = page.get_by_text("Ask questions about your")
    expect(panel).to_be_visible(timeout=PATIENCE)
    page.get_by_role("button", name="Close").first.click()
    expect(panel).to_be_hidden()


def row(page: Page, name: str) -> Locator:
    """Return the row with the name of a run; the table's other cells are in another row."""
    link = page.get_by_role("link", name=re.compile(f"^{re.escape(name)}"))
    return page.get_by_role("row").filter(has=link).first


def figures_beside(page: Page, name: str) -> list[str]:
    """Return what the columns of the table show of a run."""
    index = row(page, name).get_attribute("row-index")
    cells = page.locator(f'.ag-center-cols-container [row-index="{index}"] [role=gridcell]')
    return cells.all_inner_texts()


def compare(page: Page) -> None:
    """Tick `full` and `lora`, and press Compare."""
    for method in ("full", "lora"):
        index = row(page, method).get_attribute("row-index")
        page.locator(f'[row-index="{index}"] input[type=checkbox]').first.check()
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_text("Run details").first).to_be_visible(timeout=PATIENCE)


def metrics_compared(page: Page, until: str) -> list[str]:
    """Return the cells of the table of metrics down to one key; it draws only what one sees."""
    tables = page.locator(".ReactVirtualized__Grid")
    expect(tables.first).to_be_visible(timeout=PATIENCE)
    seen: dict[str, None] = {}
    for top in range(0, 4000, 150):
        tables.evaluate_all("(tables, top) => tables.forEach(t => { t.scrollTop = top })", top)
        page.wait_for_timeout(200)
        seen |= dict.fromkeys(text for cell in tables.all_inner_texts() for text in cell.split())
        if until in seen:
            return list(seen)
    raise AssertionError(f"{until} is not in the table of metrics: {seen}")


def artifacts(page: Page, run: str) -> None:
    """Open the files of a run from the table of runs."""
    row(page, run).get_by_role("link").first.click()
    page.get_by_role("tab", name="Artifacts").click()


def test_the_page_opens_with_the_verdict_and_the_columns_that_matter(
    runs: Page, shown: Shown, picture
) -> None:
    verdict = shown.metrics("comparison")["headline"][0].partition(":")[0]
    expect(runs.get_by_text(verdict).first).to_be_visible()
    expect(runs.get_by_test_id("saved-views-trigger")).to_have_text(VIEW_NAME)
    headers = runs.get_by_role("columnheader").all_inner_texts()
    for figure in ("test/accuracy", "params/trainable", "cost/train_seconds"):
        assert figure in headers
    champion = read_recommendation(shown.metrics("comparison"))
    assert champion is not None
    pipeline = row(runs, "pipeline ")
    expect(pipeline).to_be_visible()
    beside = set(figures_beside(runs, "pipeline "))
    if champion.kind == "method":
        # In whichever order the table has drawn the cells of a row.
        assert set(figures_beside(runs, champion.method)[:5]) <= beside
    else:
        size = shown.metrics("baseline")[champion.use]["trainable_parameters"]
        assert str(size) in beside
    for method in ("full", "lora"):
        accuracy, trainable, seconds, *_ = figures_beside(runs, method)
        metrics = shown.metrics(method)
        assert float(accuracy) == pytest.approx(metrics["test"]["accuracy"], abs=1e-3)
        assert int(trainable) == metrics["trainable_parameters"]
        assert float(seconds) > 0
    picture("mlflow-runs")


def test_the_note_of_the_pipeline_opens_compare_with_all_methods(runs: Page, shown: Shown) -> None:
    row(runs, "pipeline ").get_by_role("link").first.click()
    address = runs.get_by_role("link", name="Compare the methods").get_attribute("href")
    assert address is not None
    runs.goto(shown.address.partition("#")[0] + address)  # MLflow opens it in another tab
    expect(runs.get_by_text("Run details").first).to_be_visible(timeout=PATIENCE)
    for method in shown.params.methods:
        expect(runs.get_by_text(method, exact=True).first).to_be_attached()


def test_compare_shows_accuracy_parameters_time_and_every_difference(
    runs: Page, shown: Shown, picture
) -> None:
    compare(runs)
    seen = metrics_compared(runs, until="test/accuracy")
    assert {"test/accuracy", "params/trainable", "cost/train_seconds"} <= set(seen)
    for method in ("full", "lora"):
        assert str(shown.metrics(method)["trainable_parameters"]) in seen
    names = ("full", "lora")
    differences = differing(
        [method_params(Paths(shown.folder), shown.params, name) for name in names]
    )
    assert {"method.trainable", "method.learning_rate", "method.lora.r"} <= set(differences)
    table = runs.get_by_role("table").filter(has_text="method.trainable")
    runs.get_by_label("Parameters - Show diff only").click()
    expect(table.get_by_role("rowheader")).to_have_count(len(differences))
    assert sorted(table.get_by_role("rowheader").all_inner_texts()) == sorted(differences)
    table.scroll_into_view_if_needed()
    picture("mlflow-compare")


def test_a_chart_shows_both_curves(runs: Page, picture) -> None:
    compare(runs)
    metrics_compared(runs, until="validation/loss")
    runs.get_by_role("link", name="validation/loss").first.click()
    for method in ("full", "lora"):
        expect(runs.get_by_text(f"{method} (validation/loss)").first).to_be_visible()
    curves = runs.locator(".scatterlayer .trace path.js-line")
    expect(curves.first).to_be_visible(timeout=PATIENCE)
    # Where MLflow smooths, a curve has a faint twin of the same colour.
    colours = curves.evaluate_all("lines => lines.map(line => getComputedStyle(line).stroke)")
    assert len(set(colours)) == 2
    lengths = curves.evaluate_all("lines => lines.map(line => line.getTotalLength())")
    assert min(lengths) > 50
    picture("mlflow-curves")


def test_a_runs_plot_is_drawn(runs: Page) -> None:
    artifacts(runs, "lora")
    runs.get_by_text("plots", exact=True).click()
    runs.get_by_text("confusion_lora.svg", exact=True).click()
    drawn = runs.get_by_role("img", name="plots/confusion_lora.svg")
    expect(drawn).to_be_visible(timeout=PATIENCE)
    size = drawn.bounding_box()
    assert size is not None
    assert size["width"] > 200
    assert size["height"] > 150


def test_the_report_opens_inside_mlflow(runs: Page, shown: Shown) -> None:
    artifacts(runs, "compare")
    runs.get_by_text("comparison.html", exact=True).click()
    report = runs.frame_locator("iframe")
    expect(report.get_by_role("heading", level=1)).to_be_visible(timeout=PATIENCE)
    verdict = shown.metrics("comparison")["headline"][0].partition(":")[0].strip("*.")
    assert verdict in report.get_by_role("heading", level=1).inner_text().replace("\n", " ")


def test_a_run_says_what_it_is_of(runs: Page, shown: Shown) -> None:
    row(runs, "lora").get_by_role("link").first.click()
    expect(runs.get_by_text("trained parameters")).to_be_visible(timeout=PATIENCE)
    runs.get_by_text("+2", exact=True).first.click()
    for split in ("train", "validation", "test"):
        content = (shown.folder / "data" / "splits" / f"{split}.csv").read_bytes()
        digest = hashlib.sha256(content).hexdigest()[:16]
        expect(runs.get_by_text(digest).first).to_be_attached()
    runs.keyboard.press("Escape")
    model = runs.get_by_role("link", name=re.compile(r"^lora-compare-\S+-gpt2-nano-lora"))
    expect(model.first).to_be_visible()
