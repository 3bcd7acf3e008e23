"""The report in a real browser: what is seen first, on a phone, in the dark, on paper."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

from comparison_inputs import ACCURACY, METHODS, TRAINED, make_texts, make_wrong, write_inputs
from lora_compare.report.page import write_comparison

pytestmark = pytest.mark.browser

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 375, "height": 812}
WIDTHS = (320, 375, 768, 1100, 1180, 1280)
"""Of phones, of a tablet, and on both sides of where the page changes its layout."""

PAPER = {"width": 703, "height": 1017}
"""What A4 leaves between the page's margins, in CSS pixels."""

HOSTILE = (
    "<script>document.title = 'run'</script>",
    "</td></table><img src=http://evil.example/x.png onerror=alert(1)>",
    "<style>body { display: none }</style><b id='leaks'>",
    "\u202egnirts desrever \x07 \u2066isolated",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643 " * 40,
    "w" * 10_000,
    "two words " * 1_000,
)

LONG_NAMES = ("x" * 64, "lora" + "_with_a_name" * 5)

KINDS: dict[str, dict[str, Any]] = {
    "two methods": {},
    "one method": {"methods": ("lora",), "n": 80},
    "three seeds": {"seeds": (1, 2, 3)},
    "five methods": {"methods": tuple(METHODS), "n": 200},
    "seven classes": {"n": 210, "classes": [f"a class called {i}" for i in range(7)]},
    "long names": {
        "methods": ("full", *LONG_NAMES),
        "n": 60,
        "classes": [f"a class with a whole sentence as its name, number {i}" for i in range(3)],
    },
    "many classes": {
        "methods": tuple(METHODS),
        "n": 770,
        "classes": [f"a_wrong_exchange_rate_or_fee_{i}" for i in range(77)],
        "texts": [f"{'I paid, and the app said no. ' * (i % 12)}{i}" for i in range(770)],
    },
    "hostile": {"n": 60, "texts": [*HOSTILE, *make_texts(60 - len(HOSTILE))]},
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of every kind of evidence."""
    pages = {}
    with pytest.MonkeyPatch.context() as patch:
        for name in LONG_NAMES:
            patch.setitem(METHODS, name, METHODS["lora"])
            patch.setitem(TRAINED, name, 1_557_611_200)
            patch.setitem(ACCURACY, name, 0.9)
        for number, (kind, options) in enumerate(KINDS.items()):
            paths, params = write_inputs(tmp_path_factory.mktemp(f"report{number}"), **options)
            # So that hostile messages are shown, and messages that all get wrong.
            wrong = {"hostile": ["lora"], "five methods": options.get("methods", ())}
            make_wrong(paths, wrong.get(kind, ()), len(HOSTILE))
            write_comparison(paths, params)
            pages[kind] = paths.report("html")
    return pages


def show(page: Page, file: Path, size: dict[str, int] = DESKTOP, scheme: str = "light") -> None:
    page.set_viewport_size(size)
    page.emulate_media(color_scheme=scheme)
    page.goto(file.as_uri())


def open_all(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def cut(page: Page) -> list[str]:
    """Return elements that end beyond the window and are in nothing that scrolls."""
    return page.evaluate(
        """() => [...document.querySelectorAll('main *, header *')]
          .filter(one => !one.closest('svg') && one.checkVisibility())
          .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
          .filter(one => {
            const box = one.closest('.scroll');
            return !box || getComputedStyle(box).overflowX !== 'auto' || one === box;
          })
          .map(one => one.outerHTML.slice(0, 120))"""
    )


def bottom(page: Page, selector: str) -> float:
    box = page.locator(selector).first.bounding_box()
    assert box is not None
    return box["y"] + box["height"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "long names"])
def test_the_first_screen_holds_cautions_what_to_use_and_the_price(
    page: Page, reports: dict[str, Path], kind: str
) -> None:
    show(page, reports[kind])
    places = [bottom(page, selector) for selector in (".cautions", "h1", ".lead")]
    assert places == sorted(places)
    assert bottom(page, ".lead") < 500
    assert page.locator("h1").inner_text().startswith("Use ")
    methods = KINDS[kind].get("methods", ("full", "lora"))
    rows = page.locator(".forest tbody tr")
    assert rows.count() == len(methods) + 2
    first = rows.first.bounding_box()
    assert first is not None
    assert first["y"] + first["height"] <= DESKTOP["height"]
    assert all(row.locator("td.price").count() == 4 for row in rows.all())
    if len(methods) > 1:
        assert bottom(page, ".tiles") < DESKTOP["height"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_interval_lies_on_the_band_of_the_margin(
    page: Page, reports: dict[str, Path], kind: str
) -> None:
    show(page, reports[kind])
    methods = KINDS[kind].get("methods", ("full", "lora"))
    rows = page.locator(".forest tbody tr")
    assert rows.locator(".plot .origin").count() == 1
    # Every method but the reference, and TF-IDF; the untuned model lies beyond the axis.
    assert rows.locator(".plot .bar").count() == len(methods)
    assert rows.locator(".plot .band").count() == len(methods) + 2
    for bar in rows.locator(".plot .bar").all():
        drawn, cell = bar.bounding_box(), bar.locator("xpath=ancestor::td").bounding_box()
        assert drawn is not None
        assert cell is not None
        assert drawn["width"] > 2
        assert cell["x"] <= drawn["x"]
        assert drawn["x"] + drawn["width"] <= cell["x"] + cell["width"]
    seeds = rows.locator(".plot .seed, .plot text").count()
    assert seeds == 1 + (3 * len(methods) if kind == "three seeds" else 0)


def test_a_phone_shows_what_to_use_first(page: Page, reports: dict[str, Path]) -> None:
    show(page, reports["two methods"], PHONE)
    assert bottom(page, ".lead") < PHONE["height"]
    assert bottom(page, ".tiles") < PHONE["height"]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_cut_off(page: Page, reports: dict[str, Path], kind: str) -> None:
    show(page, reports[kind])
    open_all(page)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert overflow(page) <= 0, width
        assert cut(page) == [], width


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing(
    page: Page, reports: dict[str, Path], kind: str, size: dict[str, int], scheme: str
) -> None:
    show(page, reports[kind], size, scheme)
    open_all(page)
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()


def test_dark_is_dark_and_light_is_light(page: Page, reports: dict[str, Path]) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        show(page, reports["two methods"], scheme=scheme)
        style = "getComputedStyle(document.body)"
        seen[scheme] = [page.evaluate(f"{style}.{name}") for name in ("backgroundColor", "color")]
    brightness = {
        scheme: [sum(int(part) for part in colour[4:-1].split(",")) for colour in colours]
        for scheme, colours in seen.items()
    }
    assert brightness["light"][0] > 700 > 200 > brightness["light"][1]
    assert brightness["dark"][0] < 100 < 600 < brightness["dark"][1]


@pytest.mark.parametrize("kind", KINDS)
def test_paper_shows_everything_and_cuts_nothing(
    page: Page, reports: dict[str, Path], kind: str
) -> None:
    show(page, reports[kind], PAPER)
    page.emulate_media(media="print")
    assert overflow(page) <= 0
    assert cut(page) == []
    # What is folded, or filtered away on the screen, is on paper all the same.
    hidden = page.evaluate(
        """() => [...document.querySelectorAll('details table, #messages tbody tr, figure')]
          .filter(one => !one.checkVisibility())
          .map(one => one.outerHTML.slice(0, 120))"""
    )
    assert hidden == []
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def shown(page: Page) -> list[str]:
    """Return the classes of the messages' rows that are to be seen."""
    rows = page.locator("#messages tbody tr")
    return [row.get_attribute("class") or "" for row in rows.all() if row.is_visible()]


def counted(page: Page) -> int:
    """Return the number of messages that the page itself says it shows.

    The number is of a style: only the tree that listeners' programs read has it.
    """
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")
    names = [node.get("name", {}).get("value", "") for node in tree["nodes"]]
    place = max(place for place, name in enumerate(names) if name == "shown")
    return int(next(name for name in reversed(names[:place]) if name.strip().isdigit()))


def choose(page: Page, identity: str) -> None:
    page.locator(f"label:has(#{identity})").click()


def test_messages_can_be_filtered_by_who_was_right(page: Page, reports: dict[str, Path]) -> None:
    show(page, reports["five methods"])
    every = page.locator("#messages tbody tr").count()
    disputed = shown(page)
    assert 0 < len(disputed) < every
    assert all("disputed" in row for row in disputed)
    assert counted(page) == len(disputed)
    choose(page, "every")
    assert len(shown(page)) == counted(page) == every
    choose(page, "shared")
    assert len(shown(page)) == every - len(disputed)
    choose(page, "every")
    choose(page, "right-0")
    choose(page, "wrong-4")
    chosen = shown(page)
    assert 0 < len(chosen) == counted(page) < every
    assert all({"r0", "w4"} <= set(row.split()) for row in chosen)
    choose(page, "class-1")
    assert shown(page) == [row for row in chosen if "k1" in row.split()]
    choose(page, "any-0")
    choose(page, "any-4")
    choose(page, "class-any")
    assert len(shown(page)) == every


def test_many_long_names_of_classes_need_no_sideways_scrolling(
    page: Page, reports: dict[str, Path]
) -> None:
    show(page, reports["many classes"])
    wide = page.evaluate(
        """() => [...document.querySelectorAll('#messages .scroll, #confusion .scroll')]
          .filter(one => one.scrollWidth > one.clientWidth + 1).length"""
    )
    assert wide == 0
    assert page.locator("#messages tbody tr").count() > 100
    assert page.evaluate("document.documentElement.scrollHeight") < 13_000
    # The names of the columns stay where they are while the rows scroll.
    table = page.locator("#messages .scroll")
    table.evaluate("one => one.scrollTop = 2000")
    head, box = table.locator("thead th").first.bounding_box(), table.bounding_box()
    assert head is not None
    assert box is not None
    assert abs(head["y"] - box["y"]) < 3


def test_messages_of_one_of_many_classes_can_be_picked(
    page: Page, reports: dict[str, Path]
) -> None:
    show(page, reports["many classes"])
    choose(page, "every")
    every = len(shown(page))
    option = page.locator("#messages option").nth(3)
    name, count = (option.text_content() or "").rstrip(")").rsplit(" (", 1)
    page.get_by_role("combobox", name="Is").select_option(index=3)
    labels = page.locator("#messages tbody tr:visible td[data-of=is]").all_inner_texts()
    assert 0 < len(labels) == int(count) == counted(page) < every
    assert set(labels) == {name}


def test_confusion_matrices_show_the_same_classes_with_whole_names(
    page: Page, reports: dict[str, Path]
) -> None:
    show(page, reports["many classes"])
    charts = page.locator("#confusion figure svg").all()
    names = [re.findall(r"\d+ a_wrong_\S+?_fee_\d+", c.text_content() or "") for c in charts]
    tips = [chart.locator("title").all_text_contents() for chart in charts]
    told = [sorted({tip.split(" taken")[0].split()[-1] for tip in of_chart}) for of_chart in tips]
    assert len(charts) == len(METHODS)
    assert len(told[0]) == 12
    assert all(one == told[0] for one in told)
    assert names == [names[0]] * len(charts)


def test_a_long_message_unfolds_in_its_paragraph(page: Page, reports: dict[str, Path]) -> None:
    show(page, reports["many classes"])
    message = page.locator("#messages td.message:has(details.text)").first
    before = message.inner_text()
    message.locator("summary").click()
    after = message.inner_text()
    assert len(before) < 220 < len(after)
    assert after.startswith(before[:150])
    assert "\n" not in after.removesuffix("twin in train").strip()


def test_the_filters_work_by_the_keyboard(page: Page, reports: dict[str, Path]) -> None:
    show(page, reports["two methods"])
    page.locator("#any-0").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#right-0").is_checked()
    assert all("r0" in row.split() for row in shown(page))


def test_a_method_can_be_taken_out_of_the_charts(page: Page, reports: dict[str, Path]) -> None:
    show(page, reports["five methods"])
    curves, calibrations = page.locator("#curves figure path"), page.locator("#calibration figure")
    before = sum(path.is_visible() for path in curves.all())
    choose(page, "show-1")
    after = sum(path.is_visible() for path in curves.all())
    # Four curves, and the line that leads to the name at the end of each.
    assert before - after == 8
    assert [figure.is_visible() for figure in calibrations.all()] == [True, False, True, True, True]
    # The first screen and the tables keep it.
    assert page.locator(".forest tbody tr").nth(1).is_visible()
    choose(page, "show-1")
    assert sum(path.is_visible() for path in curves.all()) == before


def test_a_pointer_is_told_the_value_of_a_point(page: Page, reports: dict[str, Path]) -> None:
    show(page, reports["two methods"])
    found = page.evaluate(
        """() => {
          document.querySelector('#curves').scrollIntoView();
          const tips = [...document.querySelectorAll('#curves figure .tip')];
          const last = tips[tips.length - 1].getBoundingClientRect();
          const under = document.elementFromPoint(
            last.x + last.width / 2, last.y + last.height / 2);
          return under.querySelector('title').textContent;
        }"""
    )
    assert found.startswith("lora, epoch 5: validation ")


def test_hostile_messages_are_text_in_their_cells(page: Page, reports: dict[str, Path]) -> None:
    show(page, reports["hostile"])
    choose(page, "every")
    open_all(page)
    cells_texts = page.locator("#messages td.message").all_inner_texts()
    texts = [text.removesuffix("twin in train").strip() for text in cells_texts]
    assert HOSTILE[0] in texts
    assert HOSTILE[1] in texts
    assert HOSTILE[2] in texts
    assert any(text.startswith("w" * 600) and "(10,000 characters)" in text for text in texts)
    assert "comparison of fine-tuning methods" in page.title()
    assert page.locator("img, script").count() == 0
    # A text from right to left stays in its cell, and turns nothing after it around.
    cells = page.evaluate(
        """() => [...document.querySelectorAll('#messages tbody tr')].map(row =>
          [...row.cells].map(cell => cell.getBoundingClientRect().x))"""
    )
    assert all(np.diff(row).min() > 0 for row in cells)
