"""Debian's chromium, and pages that must not reach beyond this machine."""

import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
"""Tests run as root in containers; and the browser itself shall ask nothing of the network."""

LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--project", help="show this project's runs, in which `dvc repro` has run")
    parser.addoption("--screenshots", help="a folder for pictures of MLflow's pages")


def is_local(address: str) -> bool:
    """Whether an address is of a file, of the page itself, or of a server on this machine."""
    parts = urlsplit(address)
    return parts.scheme in ("file", "data", "blob", "about") or parts.hostname in LOOPBACK


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser, started once."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium; on Debian and Ubuntu: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """An empty page of 1280 x 800; a request beyond this machine or an error fails the test."""
    yield from watched_page(chromium, errors=True)


def watched_page(chromium: Browser, errors: bool) -> Iterator[Page]:
    """Yield an empty page; fail afterwards where it asked for anything beyond this machine.

    Args:
        chromium: The browser.
        errors: Whether errors in its console count too.
    """
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    troubles: list[str] = []

    def note_request(request):
        if not is_local(request.url):
            troubles.append(f"request: {request.url}")

    def note_console(message):
        if message.type == "error":
            troubles.append(f"console: {message.text}")

    page.on("request", note_request)
    if errors:
        page.on("console", note_console)
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    yield page
    context.close()
    assert troubles == []
