"""MLflow's pages in a real browser, on a store that the pipeline filled, as a user meets them."""

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
from playwright.sync_api import Locator, Page, expect

from dvc_runs import dvc
from lora_compare.params import Params, load_params
from lora_compare.tracking.records import method_params
from lora_compare.tracking.view import differing
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
    """Close MLflow's assistant, which is open at a browser's first visit."""
    panel = page.get_by_text("MLflow Assistant", exact=True)
    if panel.count():
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
    page.get_by_role("button", name="Compare").click()
    expect(page.get_by_text("Run details").first).to_be_visible(timeout=PATIENCE)


def test_the_page_opens_with_the_verdict_and_the_columns_that_matter(
    runs: Page, shown: Shown, picture
) -> None:
    headline = shown.metrics("comparison")["headline"][0].strip("*")
    expect(runs.get_by_text(headline[:40]).first).to_be_visible()
    headers = runs.get_by_role("columnheader").all_inner_texts()
    for figure in ("test/accuracy", "params/trainable", "cost/train_seconds"):
        assert figure in headers
    for method in ("full", "lora"):
        accuracy, trainable, seconds, *_ = figures_beside(runs, method)
        metrics = shown.metrics(method)
        assert float(accuracy) == pytest.approx(metrics["test"]["accuracy"], abs=1e-3)
        assert int(trainable) == metrics["trainable_parameters"]
        assert float(seconds) > 0
    picture("mlflow-runs")


def test_compare_shows_accuracy_parameters_time_and_every_difference(
    runs: Page, shown: Shown, picture
) -> None:
    compare(runs)
    text = runs.locator("body").inner_text()
    for figure in ("test/accuracy", "params/trainable", "cost/train_seconds"):
        assert figure in text
    for method in ("full", "lora"):
        assert str(shown.metrics(method)["trainable_parameters"]) in text.replace(",", "")
    methods = [method_params(shown.params, name) for name in ("full", "lora")]
    differences = differing(methods)
    assert {"method.trainable", "method.learning_rate", "method.lora.r"} <= set(differences)
    runs.get_by_text("Show diff only").first.click()
    for key in differences:
        expect(runs.get_by_text(key, exact=True).first).to_be_attached()
    picture("mlflow-compare")
