"""The comparison as a page that opens offline, as markdown, and as charts.

Messages are hostile input: the page's template escapes every value, and forbids the browser
to run or fetch anything.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lora_compare.comparison import formats, leaks
from lora_compare.comparison.disagreements import find_confusions
from lora_compare.comparison.evidence import Evidence, load_evidence
from lora_compare.comparison.prices import footnote, price_sentence
from lora_compare.comparison.sentences import (
    METRICS,
    against,
    beside,
    claimed,
    headline,
    level,
    margin_of,
    unit,
    what_settles,
    with_spread,
)
from lora_compare.comparison.verdict import compare
from lora_compare.data.splits.describing import describe_split
from lora_compare.data.splits.groups import join_groups, number_groups
from lora_compare.data.twins import near_duplicate_groups
from lora_compare.errors import without_credentials
from lora_compare.evaluation.noise import INSTALL, ONE_CLASS_ALONE
from lora_compare.params import Params
from lora_compare.project.checksums import seal
from lora_compare.project.files import write_csv, write_json, write_text
from lora_compare.project.paths import Paths
from lora_compare.project.progress import SILENT, Progress
from lora_compare.report import charts, decisions, overview, versions
from lora_compare.report.contents import Contents, gather
from lora_compare.report.figures import (
    describe_matrix,
    draw,
    label_rows,
    learned,
    searched,
    tuned,
)
from lora_compare.report.markdown import render_markdown
from lora_compare.report.scaling import larger_models
from lora_compare.report.tables import answers, curves, figures

LONGEST_MESSAGE = 600
"""Characters of a message that the page shows."""

FOLDED_MESSAGE, FOLDED_LINES = 180, 4
"""Characters and lines of a longer message that stand before its fold."""

MOST_CONFUSIONS = 200
"""Confusions of two classes that the page shows."""

MOST_PAIRS = 50
"""Twins in training and test that the page shows."""

NUMBERS = (
    "percent",
    "percent_interval",
    "points",
    "decimal",
    "p_value",
    "count",
    "size",
    "duration",
    "share",
)
"""Functions of `formats` that the template uses."""


def write_comparison(paths: Paths, params: Params, progress: Progress = SILENT) -> dict[str, Any]:
    """Write all outputs of the stage compare from those of earlier stages; return the comparison.

    The same inputs give the same bytes. Nothing is trained or evaluated, and no model is read.

    Args:
        paths: The project.
        params: The experiment.
        progress: Where the time of each part is noted.

    Raises:
        MissingArtifactError: A file is missing; the message names the stage that writes it.
        IntegrityError: A file has changed since its stage wrote it.
        DataError: Two files of predictions are not about the same messages.
    """
    with progress.work("compare"):
        evidence = load_evidence(paths, params)
        groups = near_duplicate_groups(evidence.texts)
        if evidence.groups:
            groups = join_groups(groups, number_groups(evidence.groups))
        comparison = compare(evidence, groups, params)
        write_json(paths.metrics("comparison"), comparison)
        write_json(paths.metrics("summary"), figures(evidence))
        write_csv(paths.curves, curves(evidence))
        write_csv(paths.answers, answers(evidence))
    with progress.work("write the report"):
        write_report(paths, params, evidence, comparison)
    seal(paths.comparison)
    return comparison


def write_report(
    paths: Paths, params: Params, evidence: Evidence, comparison: Mapping[str, Any]
) -> None:
    """Write the page, the markdown and every chart as a file of its own.

    Charts of methods that are no longer compared are deleted.

    Args:
        paths: Where to write.
        params: The experiment, for the settings.
        evidence: What the methods and baselines did.
        comparison: The content of metrics/comparison.json.
    """
    drawings = draw(params, evidence, comparison)
    for name, svg in drawings.items():
        write_text(paths.plots / f"{name}.svg", svg)
    for old in paths.plots.glob("*.svg"):
        if old.stem not in drawings:
            old.unlink()
    contents = gather(params, evidence, comparison)
    write_text(paths.report("html"), render_html(contents, drawings))
    write_text(paths.report("md"), render_markdown(contents))


def render_html(contents: Contents, drawings: Mapping[str, str]) -> str:
    """Return the page: one file without a script, a link outside, or a font to fetch.

    Args:
        contents: What it shows.
        drawings: The charts, from `draw`.
    """
    params, evidence, comparison = contents.params, contents.evidence, contents.comparison
    first, _, rest = headline(comparison).partition(". ")
    confusions = find_confusions(evidence)
    return (
        _environment()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            headline=first.removesuffix(".").replace(" %", "\N{NO-BREAK SPACE}%"),
            rest=rest,
            metric=METRICS[comparison["metric"]],
            reference=overview.reference(comparison),
            pairs={pair["a"]: pair for pair in comparison["pairs"]},
            beside={key: METRICS[key] for key in beside(comparison)},
            several_labels=evidence.several,
            split_figures=overview.split_figures(comparison),
            per_thousand="test_misses_per_1000" in comparison["methods"][0],
            positive=comparison.get("positive"),
            unit=unit(comparison),
            decisions=decisions.decisions(evidence, comparison),
            before_and_after=decisions.BEFORE_AND_AFTER,
            savings=overview.savings(comparison),
            price=price_sentence(comparison),
            footnote=footnote(comparison),
            larger=larger_models(comparison),
            tuned=[tuned(method) for method in evidence.methods if searched(method)],
            params=params,
            names=evidence.names,
            seeded=max(len(method.seeds) for method in evidence.methods) > 1,
            folds=bool(evidence.folds),
            trainings="folds" if evidence.folds else "seeds",
            classes=evidence.classes,
            places={name: place for place, name in enumerate(evidence.names)},
            colours=len(charts.COLOURS),
            axis=overview.make_axis(comparison),
            descriptions=overview.describe(params),
            prices=overview.prices(comparison),
            drawings=drawings,
            learned=[learned(method) for method in evidence.methods],
            matrices={m.name: describe_matrix(m) for m in evidence.methods if not evidence.several},
            label_rows=label_rows(evidence) if evidence.several else [],
            cases=contents.cases,
            confusions=confusions[:MOST_CONFUSIONS],
            n_confusions=len(confusions),
            answers=evidence.answers,
            many_classes=len(evidence.answers) > charts.MOST_CLASSES,
            long_names=max(map(len, evidence.answers)) > charts.SHORT,
            class_places={name: place for place, name in enumerate(evidence.answers)},
            case_classes=Counter(case.label for case in contents.cases.shown),
            split=evidence.split,
            tokens=evidence.tokens,
            grouped=bool(evidence.groups),
            split_rules=describe_split(evidence.split, params.split),
            leaks=contents.leaks,
            likeness=leaks.LIKENESS,
            twins=leaks.pairs(evidence, contents.twins)[:MOST_PAIRS],
            n_twins=len(contents.twins),
            suspects=contents.suspects,
            most_suspects=MOST_PAIRS,
            install_noise=INSTALL,
            one_class_alone=ONE_CLASS_ALONE,
            differing=contents.differing,
            settings=_all_settings(params),
            environments=contents.environments,
            same_machine=all(map(versions.alike, contents.environments.values())),
            source=versions.source(evidence),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lora_compare.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {name: getattr(formats, name) for name in NUMBERS}
    environment.filters |= {
        "against": against,
        "claimed": claimed,
        "level": level,
        "what_settles": what_settles,
        "margin": margin_of,
        "ticked": overview.ticked,
        "with_spread": with_spread,
        "inline": _inline,
        "fold": _fold,
        "breakable": _breakable,
    }
    return environment


def _fold(text: str) -> tuple[str, str]:
    """Return the beginning of a message and the rest of what is shown; nothing of a short one."""
    shown = formats.shorten(text, LONGEST_MESSAGE)
    head = "".join(shown[:FOLDED_MESSAGE].splitlines(keepends=True)[:FOLDED_LINES])
    if len(shown) - len(head) < FOLDED_MESSAGE // 3 and head.count("\n") < FOLDED_LINES:
        return shown, ""
    words = head.rpartition(" ")
    head = words[0] + words[1] if len(words[0]) > FOLDED_MESSAGE // 2 else head
    return head, shown[len(head) :]


def _breakable(name: str) -> Markup:
    """Return a class's name that may be broken after the signs which join its words."""
    return Markup("<wbr>").join(re.split(r"(?<=[_./:-])(?=\w)", name))


def _inline(svg: str, description: str) -> Markup:
    """Return a chart of ours, which is SVG already, with its description for a listener.

    The page has a colour for each method in light and one in dark.
    """
    for place, paint in enumerate(charts.COLOURS):
        # Only a style knows the page's colours; a fill beside it is a tip, which has no colour.
        svg = re.sub(rf"(?<=: ){paint}\b", f"var(--c{place})", svg, flags=re.IGNORECASE)
    attributes = f'<svg role="img" aria-label="{escape(description)}" '
    return Markup(svg.replace("<svg ", attributes, 1))  # noqa: S704 (matplotlib escapes)


def _all_settings(params: Params) -> dict[str, dict[str, str]]:
    """Return every setting as YAML would show it, by section and key; a method is a section."""
    sections: dict[str, dict[str, str]] = {}
    for key, value in params.flat().items():
        section, _, name = key.partition(".")
        if section == "methods":
            method, _, name = name.partition(".")
            section = f"methods.{method}"
        # Where runs are shown changes no result, so the stage need not depend on it.
        if section != "tracking":
            text = without_credentials(formats.setting(value))
            sections.setdefault(section, {})[name] = text
    return sections
