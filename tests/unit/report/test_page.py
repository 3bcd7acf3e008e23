"""The page, the markdown, the charts and the terminal's table."""

import itertools
import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from comparison_inputs import answers_of, make_texts, seal_metrics, write_inputs
from lora_compare.comparison import formats
from lora_compare.comparison.evidence import load_evidence
from lora_compare.comparison.outcomes import Tuning
from lora_compare.comparison.sentences import claimed, headline
from lora_compare.comparison.verdict import compare
from lora_compare.data.twins import near_duplicate_groups
from lora_compare.errors import MissingArtifactError
from lora_compare.project.checksums import seal
from lora_compare.project.corpus import make_split, write_split
from lora_compare.project.files import write_json, write_text
from lora_compare.project.paths import Paths
from lora_compare.report.markdown import plain, render_results
from lora_compare.report.page import write_comparison, write_report
from lora_compare.report.terminal import print_summary

VOID = {"meta", "link", "br", "img", "input", "hr", "wbr"}

HOSTILE = (
    "<script>alert('x')</script>",
    "</td></table><img src=http://evil.example/x.png onerror=alert(1)>",
    '{{ 7 * 7 }} ${7*7} $\\frac{1}{2}$ & &amp; "quoted" | `code`',
    "\u202egnirts desrever \x07 \u0000bell",
)


class Page(HTMLParser):
    """The tags of a page, checked for balance, with its ids, text and fetched addresses."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self._note(attrs)

    def _note(self, attrs):
        for name, value in attrs:
            assert not name.startswith("on"), f"an event handler: {name}"
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.addresses.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def make_report(root: Path, methods=("full", "lora"), **options):
    paths, params = write_inputs(root, methods, **options)
    evidence = load_evidence(paths, params)
    comparison = compare(evidence, np.arange(len(evidence.texts)), params)
    write_json(paths.metrics("comparison"), comparison)
    write_report(paths, params, evidence, comparison)
    return paths, comparison


def read_html(paths) -> str:
    return paths.report("html").read_text(encoding="utf-8")


def printed(paths, width: int = 80) -> str:
    output = StringIO()
    print_summary(paths, Console(file=output, width=width))
    return output.getvalue()


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("four")
    return make_report(root, ("full", "lora", "lora_r4", "last_block"))


def test_the_page_is_well_formed_and_its_ids_are_unique(four):
    page = Page(read_html(four[0]))
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == "h1"
    assert page.headings.count("h1") == 1
    levels = [int(heading[1]) for heading in page.headings]
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_page_fetches_nothing_and_runs_nothing(four):
    text = read_html(four[0])
    page = Page(text)
    assert all(address.startswith("#") for address in page.addresses)
    assert {address[1:] for address in page.addresses} <= set(page.ids)
    assert not page.tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
    assert "@import" not in text
    assert not re.search(r"url\(\s*['\"]?(?!#)", text)
    assert "default-src 'none'" in text


def test_the_page_says_what_the_comparison_says(four):
    paths, comparison = four
    text = " ".join(" ".join(Page(read_html(paths)).words).split())
    first, _, rest = headline(comparison).partition(". ")
    first = first.replace(" %", "\N{NO-BREAK SPACE}%")
    cautions = [text.index(caution["sentence"]) for caution in comparison["cautions"]]
    places = [*cautions, text.index(first), text.index(rest), text.index("Points from full")]
    assert len(cautions) > 1
    assert places == sorted(places)
    for record in comparison["methods"] + comparison["baselines"]:
        assert f"{100 * record['test_accuracy']:.1f} %" in text
        assert f"{record['trainable_parameters']:,}" in text
    for pair in comparison["pairs"]:
        low, high = formats.points(pair["low"]), formats.points(pair["high"])
        assert f"{formats.points(pair['difference'])} ({low} to {high})" in text
        assert claimed(pair) in text
    assert "lora.lora_alpha" in text
    assert "gradient_accumulation_steps" in text
    assert "SHA-256 of the source" in text
    assert "numpy" in text


def test_hostile_messages_stay_text(tmp_path: Path):
    texts = list(HOSTILE[:3]) + make_texts(37)
    paths, params = write_inputs(tmp_path, n=40, texts=texts)
    for name in ("full", "lora", "tfidf", "untuned"):
        # Every answer is wrong, so that every message is on the page.
        (file,) = answers_of(paths, name)
        file.write_text(re.sub(r",(ham|spam),(ham|spam),", r",ham,spam,", file.read_text()))
        seal(file.parent)
    seal_metrics(paths)
    evidence = load_evidence(paths, params)
    comparison = compare(evidence, np.arange(len(evidence.texts)), params)
    write_report(paths, params, evidence, comparison)
    page = Page(read_html(paths))
    assert not page.tags & {"script", "img"}
    assert all(text in "".join(page.words) for text in HOSTILE[:3])


def test_a_message_with_control_characters_does_not_break_the_page(tmp_path: Path):
    texts = [HOSTILE[3].replace("\x00", "\x01"), *make_texts(39)]
    paths, _ = make_report(tmp_path, n=40, texts=texts)
    Page(read_html(paths))


def test_hostile_class_names_stay_text(tmp_path: Path):
    classes = ["<b>ham</b>", "$\\alpha$", "日本", "a\x01b"]
    paths, _ = make_report(tmp_path, n=80, classes=classes)
    page = Page(read_html(paths))
    assert "<b>ham</b>" in "".join(page.words)
    for file in paths.plots.glob("*.svg"):
        ElementTree.parse(file)


def test_two_reports_are_byte_equal(tmp_path: Path):
    one, two = (make_report(tmp_path / name, n=60)[0] for name in ("one", "two"))
    files = sorted(
        p.relative_to(one.root) for p in (one.root / "reports").rglob("*") if p.is_file()
    )
    assert {file.name for file in files} >= {
        "comparison.html",
        "comparison.md",
        "loss.svg",
        "accuracy.svg",
        "parameters.svg",
        "confusion_lora.svg",
        "calibration_lora.svg",
    }
    for file in files:
        assert (one.root / file).read_bytes() == (two.root / file).read_bytes(), file


def test_a_report_on_several_seeds_says_what_is_of_all_of_them(tmp_path: Path):
    paths, _ = make_report(tmp_path, n=120, seeds=(1, 2, 3))
    html = read_html(paths)
    text = " ".join("".join(Page(html).words).split())
    assert "Lines are means over the seeds" in text
    assert "The counts of all seeds are summed." in text
    assert re.search(r"\d+ more (was|were) wrong with some seeds only", text)
    assert re.search(r"<small>\d+ %, wrong in [12] of 3</small>", html)
    assert "Confusion matrix of lora, 3 seeds together." in html
    markdown = paths.report("md").read_text(encoding="utf-8")
    assert re.search(r"\| (\*\*)?(ham|spam) \d+ %, wrong in [12] of 3(\*\*)? \|", markdown)
    one, _ = make_report(tmp_path / "one", n=120)
    html, alone = read_html(paths), read_html(one)
    # A dot for every seed of lora and beside TF-IDF, the spread, and what the seeds add.
    assert html.count('<circle class="seed"') == 6
    assert '<circle class="seed"' not in alone
    assert re.search(r"<b>9\d\.\d ± \d\.\d %</b>", html)
    assert "±" not in alone.partition('<section id="settings">')[0]
    assert re.search(r"messages \d+ %, seeds \d+ %, rest \d+ %", html)
    assert "seeds 0 %" not in alone
    assert "Each method was trained once" in " ".join("".join(Page(alone).words).split())


def test_a_search_is_drawn_with_its_choice(tmp_path: Path):
    paths, params = write_inputs(tmp_path, n=60)
    evidence = load_evidence(paths, params)
    trials = pd.DataFrame(
        {
            "trial": [0, 1, 2],
            "learning_rate": [0.001, 0.002, 0.004],
            "seed": 101,
            "validation_loss": [0.2, 0.1, float("nan")],
            "validation_accuracy": [0.9, 0.95, float("nan")],
            "status": ["finished", "finished", "diverged"],
        }
    )
    choice = {
        "settings": {"learning_rate": 0.002},
        "searched": True,
        "at_edge": ["learning_rate"],
        "extended": 0,
        "trials": 3,
    }
    full, lora = evidence.methods
    evidence = replace(evidence, methods=(full, replace(lora, tuning=Tuning(choice, trials))))
    comparison = compare(evidence, np.arange(60), params)
    write_report(paths, params, evidence, comparison)
    html = read_html(paths)
    assert "Chosen: learning_rate 0.002 of 3 trials. At the end of the range: learning_rate" in html
    assert "trial 2, seed 101: learning_rate 0.004, diverged" in html
    assert "tuning_full" not in html
    assert (paths.plots / "tuning_lora.svg").is_file()
    assert [one["key"] for one in comparison["cautions"]].count("edge") == 1


def test_charts_of_methods_that_are_gone_are_deleted(tmp_path: Path):
    old = tmp_path / "reports" / "comparison" / "plots" / "confusion_old.svg"
    write_text(old, "<svg/>")
    paths, _ = make_report(tmp_path, ("full",), n=40)
    assert sorted(p.stem for p in paths.plots.glob("*_*.svg")) == [
        "calibration_full",
        "confusion_full",
    ]


def test_one_method_has_a_report(tmp_path: Path):
    paths, _ = make_report(tmp_path, ("lora",), n=40)
    text = "".join(Page(read_html(paths)).words)
    assert "Use lora: it is the only method" in text or "Use TF-IDF: " in text
    assert "Points from lora" in text
    assert "Where the methods disagree" not in text
    assert "only method" in printed(paths)


def test_many_classes_have_a_report(tmp_path: Path):
    paths, _ = make_report(tmp_path, n=60, classes=[f"class {i:02d}" for i in range(15)])
    assert (
        "Of 15 classes those with the most mistakes of all methods are drawn, the same for each"
        in read_html(paths)
    )


def test_on_a_phone_every_answer_carries_the_name_of_its_column(four):
    paths, comparison = four
    text = read_html(paths)
    start = text.index('<section id="messages">')
    table = text[start : text.index("</table>", start)]
    assert '<table class="stacked">' in table
    names = ["is", *(record["method"] for record in comparison["methods"]), "tfidf"]
    rows = re.findall(r"<tr[^>]*><td class=\"message\">.*?</tr>", table, re.DOTALL)
    assert rows
    assert all(re.findall(r'data-of="([^"]*)"', row) == names for row in rows)


def test_passwords_of_addresses_are_not_shown(tmp_path: Path):
    paths, params = write_inputs(tmp_path, n=40)
    address = "https://user:secret@example.com/messages.csv"
    data = params.data.model_copy(update={"source": address})
    evidence = load_evidence(paths, params)
    comparison = compare(evidence, np.arange(len(evidence.texts)), params)
    write_report(paths, params.model_copy(update={"data": data}), evidence, comparison)
    text = read_html(paths) + paths.report("md").read_text(encoding="utf-8")
    assert "secret" not in text
    assert "https://example.com/messages.csv" in text


def test_wilsons_interval_is_said_to_cover_the_true_accuracy(four):
    text = " ".join("".join(Page(read_html(four[0])).words).split())
    assert "covers the method\u2019s true accuracy on messages of this kind with 95 %" in text


def test_markdown_holds_the_verdict_and_no_tags(four):
    paths, comparison = four
    text = paths.report("md").read_text(encoding="utf-8")
    items = [f"- {plain(caution['sentence'])}" for caution in comparison["cautions"]]
    found = f"**{plain(headline(comparison))}**"
    assert text.split("\n\n")[1:4] == ["Before the verdict:", "\n".join(items), found]
    assert "plots/loss.svg" in text
    assert "<" not in text.replace("&#60;", "")
    columns = {line.count("|") for line in text.splitlines() if line.startswith("| lora_r4 |")}
    # Of results, of pairs, and of accuracy without leaks.
    assert columns == {8, 7, 5}
    assert render_results(comparison, verdict_first=True).startswith(f"{found}\n\nBefore the")


def test_markdown_shows_disagreements_leaks_and_versions(four):
    paths, _ = four
    text = paths.report("md").read_text(encoding="utf-8")
    assert "test messages got different answers" in text
    assert re.search(r"\| \*\*(ham|spam) \d+ %\*\* \|", text)
    assert re.search(r"^\| full \| 97\.3 % \(.*\) of 296 \| .* of 288 \| .* of 8 \|$", text, re.M)
    assert "| torch | 2.13.0 | 2.13.0 | 2.13.0 | 2.13.0 |" in text


def test_the_terminal_shows_table_verdict_and_next_steps_in_80_columns(four):
    paths, comparison = four
    text = printed(paths)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert re.search(r"^ last_block +full ", text, re.M)  # no name is broken
    flat = " ".join(text.split())
    found = flat.index(headline(comparison))
    assert all(flat.index(caution["sentence"]) < found for caution in comparison["cautions"])
    assert f"lora 98.0 % 166,432 15 % 16 MB 20.8 ms (17.0{formats.DASH}40.1) 667 kB" in flat
    assert "memory of the whole process: full 32.1 s, 623 MB; lora 17.0 s, 612 MB" in flat
    assert "tfidf" in flat
    assert "untuned" in flat
    assert all(claimed(pair) in flat for pair in comparison["pairs"])
    steps = ("make ui", "open reports/comparison/comparison.html", "make repro")
    places = [flat.index(step) for step in steps]
    assert places == sorted(places)


def test_no_name_is_broken_beside_long_steps_and_no_long_name_is_cut_off(four, tmp_path):
    comparison = json.loads(json.dumps(four[1]))
    for record in comparison["methods"]:
        record |= LONG_STEPS
    paths = Paths(tmp_path)
    write_json(paths.metrics("comparison"), comparison)
    text = printed(paths)
    assert all(len(line) <= 80 for line in text.splitlines())
    assert re.search(r"^ last_block .* 754 s ", text, re.M)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text

    longer = "a_name_of_a_method_that_is_long"
    text = json.dumps(comparison).replace('"last_block"', f'"{longer}"')
    write_json(paths.metrics("comparison"), json.loads(text))
    lines = [line for line in printed(paths).splitlines() if line.strip()]
    assert all(len(line) <= 80 for line in lines)
    # Folded: the table and, as A, the pairs have it whole, piece under piece.
    assert "".join(line.split()[0] for line in lines).count(longer) >= 2


LONG_STEPS = {
    "step_cpu_seconds": 754.0,
    "step_cpu_seconds_low": 745.0,
    "step_cpu_seconds_high": 1754.0,
}


@pytest.mark.parametrize(
    "longest", ["last_two_blocks", "lora_r16_alpha32", "lora_on_attention_and_mlp_with_rank_16"]
)
def test_long_names_and_long_trainings_fit_80_columns_with_every_figure(
    four, tmp_path: Path, longest: str
):
    comparison = json.loads(json.dumps(four[1]).replace('"last_block"', json.dumps(longest)))
    for record in comparison["methods"]:
        record |= {"trainable_parameters": 1_557_611_200, **LONG_STEPS}
    for pair in comparison["pairs"]:
        pair |= {"difference": -0.111, "low": -0.123, "high": -0.101}
    write_json(Paths(tmp_path).metrics("comparison"), comparison)
    text = printed(Paths(tmp_path))
    assert all(len(line) <= 80 for line in text.splitlines())
    # A name is broken rather than a figure, and neither before there is need.
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    whole = re.findall(rf"^ {longest} ", text, re.M)
    assert len(whole) == (0 if len(longest) > 16 else 2)
    assert text.count("1,557,611,200") == text.count(" 754 s ") == 4


@pytest.mark.parametrize("width", [48, 60])
def test_a_narrow_terminal_leaves_columns_out_rather_than_break_a_figure(four, width: int):
    text = printed(four[0], width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    said = text.partition("no room here for: ")[2].split("\n\n")[0]
    assert " ".join(said.split()).startswith("of full")
    for record in four[1]["methods"]:
        assert formats.count(record["trainable_parameters"]) in text


def test_the_summary_without_a_comparison_names_the_stage(tmp_path: Path):
    paths, _ = write_inputs(tmp_path, n=40)
    with pytest.raises(MissingArtifactError, match=r"comparison\.json is missing"):
        printed(paths)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formats.percent(0.97649), "97.6 %"),
        (formats.percent(None), "n/a"),
        (formats.points(-0.0149), f"{formats.MINUS}1.5"),
        (formats.points(-0.0001), "0.0"),
        (formats.points(0.02), "+2.0"),
        (formats.p_value(0.0004), "< 0.001"),
        (formats.p_value(0.0341), "0.034"),
        (formats.p_value(0.774), "0.77"),
        (formats.size(999), "999 B"),
        (formats.size(1000), "1.0 kB"),
        (formats.size(297_400), "297 kB"),
        (formats.size(999_600), "1.0 MB"),
        (formats.size(4_300_000), "4.3 MB"),
        (formats.size(12_500_000), "12 MB"),
        (formats.duration(59.94), "59.9 s"),
        (formats.duration(59.96), "1 min 00 s"),
        (formats.duration(125), "2 min 05 s"),
        (formats.duration(7260), "2 h 01 min"),
        (formats.share(0.0214), "2.1 %"),
        (formats.share(0.155), "16 %"),
        (formats.share(1.05), "105 %"),
        (formats.count(1_074_690), "1,074,690"),
        (formats.decimal(0.12345), "0.123"),
    ],
)
def test_numbers_are_written_for_people(shown: str, expected: str):
    assert shown == expected


def test_groups_of_the_data_are_the_verdicts_groups(tmp_path: Path):
    texts = make_texts(60)
    texts[30:32] = [f"{texts[0]} again", f"{texts[5]} again"]  # twins join their groups
    paths, params = write_inputs(tmp_path, n=60, texts=texts)
    groups = [f"c{i // 4}" for i in range(56)] + [""] * 4
    write_split(paths.split("test"), make_split([i % 2 for i in range(60)], texts, groups))
    split = json.loads(paths.metrics("split").read_text())
    write_json(paths.metrics("split"), split | {"groups": {}})
    seal_metrics(paths)
    grouped = write_comparison(paths, params)
    # 14 people, of whom a twin joins two and two, and four messages that are alone.
    assert grouped["near_duplicate_groups"] == 14 - 2 + 4
    assert len(np.unique(near_duplicate_groups(texts))) == 58
    assert [pair["groups"] for pair in grouped["pairs"]] == [16, 16]
    page = read_html(paths)
    assert "over 16 groups of near-duplicates or of the data" in page
    assert "a group of the data and near-duplicates count as one" in page
    assert "in 16 groups: a claim is about groups such as these" in page
