"""The comparison as a page that opens offline, and as markdown.

Messages are hostile input: the page's template escapes every value, and forbids the browser
to run or fetch anything.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lora_compare import charts, formats
from lora_compare.comparison import (
    TESTED_BASELINE,
    differing_settings,
    headline,
    shown_settings,
)
from lora_compare.evidence import Evidence, Outcome
from lora_compare.files import write_text
from lora_compare.markdown import render_markdown
from lora_compare.metrics import calibration_bins
from lora_compare.params import Params
from lora_compare.paths import Paths
from lora_compare.summary import caution, price_sentence

MOST_MESSAGES = 100
"""Messages in one table of the page; the files of predictions hold all."""

LONGEST_MESSAGE = 600
"""Characters of a message that the page shows."""


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
    drawings = draw(evidence, comparison)
    for name, svg in drawings.items():
        write_text(paths.plots / f"{name}.svg", svg)
    for old in paths.plots.glob("*.svg"):
        if old.stem not in drawings:
            old.unlink()
    write_text(paths.report("html"), render_html(params, evidence, comparison, drawings))
    write_text(paths.report("md"), render_markdown(params, evidence, comparison))


def draw(evidence: Evidence, comparison: Mapping[str, Any]) -> dict[str, str]:
    """Return every chart as SVG text under the name of its file."""
    histories = {m.name: m.history for m in evidence.methods if m.history is not None}
    tfidf = _baseline(comparison, TESTED_BASELINE)
    drawings = {
        "loss": charts.curves(histories, "loss", "Loss"),
        "accuracy": charts.curves(histories, "accuracy", "Accuracy"),
        "parameters": charts.accuracy_by_parameters(comparison["methods"], tfidf),
    }
    for index, method in enumerate(evidence.methods):
        matrix = method.metrics["test"]["confusion_matrix"]
        drawings[f"confusion_{method.name}"] = charts.confusion(
            method.name, matrix, method.classes, index
        )
        drawings[f"calibration_{method.name}"] = charts.calibration(
            method.name, _calibration(method), index
        )
    return drawings


def render_html(
    params: Params,
    evidence: Evidence,
    comparison: Mapping[str, Any],
    drawings: Mapping[str, str],
) -> str:
    """Return the page: one file without a script, a link outside, or a font to fetch.

    Arguments as in `write_report`; `drawings` come from `draw`.
    """
    names = [method.name for method in evidence.methods]
    found, _, numbers = headline(comparison).partition(": ")
    return (
        _environment()
        .get_template("comparison.html.j2")
        .render(
            comparison=comparison,
            headline=found.removesuffix("."),
            numbers=numbers,
            price=price_sentence(comparison["reference"]),
            caution=caution(comparison),
            params=params,
            names=names,
            classes=evidence.methods[0].classes,
            colours={name: charts.colour(index) for index, name in enumerate(names)},
            scale=_scale(comparison),
            drawings=drawings,
            matrices={m.name: _matrix_in_words(m) for m in evidence.methods},
            disagreements=_disagreements(evidence),
            mistakes={outcome.name: _mistakes(outcome) for outcome in evidence.methods},
            split=evidence.split,
            differing=shown_settings(differing_settings(params, names)),
            settings=_all_settings(params),
        )
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("lora_compare"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    def inline(svg: str, description: str) -> Markup:
        """Return a chart of ours, which is SVG already, with its description for a listener."""
        attributes = f'<svg role="img" aria-label="{escape(description)}" '
        return Markup(svg.replace("<svg ", attributes, 1))  # noqa: S704 (matplotlib escapes)

    names = ("percent", "percent_interval", "points", "decimal", "p_value", "count", "size")
    environment.filters |= {name: getattr(formats, name) for name in names}
    environment.filters |= {name: getattr(formats, name) for name in ("duration", "share")}
    environment.filters["inline"] = inline
    return environment


def _baseline(comparison: Mapping[str, Any], name: str) -> Mapping[str, Any] | None:
    return next((b for b in comparison["baselines"] if b["method"] == name), None)


def _scale(comparison: Mapping[str, Any]) -> dict[str, float]:
    """Return the ends of the axis on which the table draws intervals, as fractions.

    The untuned model is left of it: with it on the axis the methods would be one blot.
    """
    rivals = [*comparison["methods"], _baseline(comparison, TESTED_BASELINE)]
    lowest = min(record["test_accuracy_low"] for record in rivals if record is not None)
    return {"low": max(0.0, np.floor(20 * lowest - 0.2) / 20), "high": 1.0}


def _calibration(outcome: Outcome) -> list[dict[str, Any]]:
    classes = outcome.classes
    places = {name: index for index, name in enumerate(classes)}
    labels = outcome.predictions["label"].map(places).to_numpy(dtype=np.int64)
    columns = [f"p_{name}" for name in classes]
    return calibration_bins(labels, outcome.predictions[columns].to_numpy(dtype=np.float64))


def _matrix_in_words(outcome: Outcome) -> str:
    matrix, classes = outcome.metrics["test"]["confusion_matrix"], outcome.classes
    confusions = [
        f"{count} of {true} as {taken}"
        for true, row in zip(classes, matrix, strict=True)
        for taken, count in zip(classes, row, strict=True)
        if count and true != taken
    ]
    shown = ", ".join(confusions[:20]) or "none"
    return f"Confusion matrix of {outcome.name}. Wrongly classified: {shown}."


def _disagreements(evidence: Evidence) -> dict[str, Any]:
    """Return the test messages to which two methods gave different answers."""
    answers = pd.DataFrame({m.name: m.predictions["predicted"] for m in evidence.methods})
    labels = evidence.methods[0].predictions["label"]
    rows = np.flatnonzero(answers.nunique(axis=1) > 1)
    return {
        "total": len(rows),
        "rows": [
            {
                "text": _shown_text(evidence.texts[row]),
                "label": labels.iloc[row],
                "answers": answers.iloc[row].to_dict(),
            }
            for row in rows[:MOST_MESSAGES]
        ],
    }


def _mistakes(outcome: Outcome) -> dict[str, Any]:
    """Return a method's wrong answers on the test split, the most confident first."""
    wrong = outcome.predictions[~outcome.correct]
    chances = wrong[[f"p_{name}" for name in outcome.classes]].max(axis=1)
    order = chances.sort_values(ascending=False, kind="stable").index[:MOST_MESSAGES]
    return {
        "total": len(wrong),
        "rows": [
            {
                "text": _shown_text(str(wrong.at[row, "text"])),
                "label": wrong.at[row, "label"],
                "predicted": wrong.at[row, "predicted"],
                "confidence": chances.at[row],
            }
            for row in order
        ],
    }


def _shown_text(text: str) -> str:
    if len(text) <= LONGEST_MESSAGE:
        return text
    return text[:LONGEST_MESSAGE] + f"\N{HORIZONTAL ELLIPSIS} ({len(text):,} characters)"


def _all_settings(params: Params) -> dict[str, str]:
    # Where runs are shown changes no result, so the stage need not depend on it.
    settings = params.flat().items()
    shown = (item for item in settings if not item[0].startswith("tracking."))
    return {key: formats.setting(value) for key, value in shown}
