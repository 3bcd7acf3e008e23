"""The charts: vector XML in the page's colours, with what a pointer is told."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lora_compare.report import charts
from lora_compare.report.charts.drawing import printable
from lora_compare.report.charts.labels import LINE, spread

SVG = "{http://www.w3.org/2000/svg}"


def history(n: int = 10, last: float = 0.036) -> pd.DataFrame:
    loss = np.geomspace(0.79, last, n)
    epochs = np.linspace(0, 5, n)
    return pd.DataFrame({"epoch": epochs, "train_loss": loss, "validation_loss": 2 * loss})


def record(method: str, trained: int, low: float = 0.9) -> dict[str, object]:
    ends = {"test_accuracy_low": low, "test_accuracy_high": low + 0.05}
    return {"method": method, "trainable_parameters": trained, "test_accuracy": low + 0.03} | ends


def drawn() -> dict[str, str]:
    bins = [{"low": 0.9, "high": 1.0, "n": 7, "confidence": 0.95, "accuracy": 6 / 7}]
    return {
        "loss": charts.curves({"full": history(), "a < b": history(1)}, "loss", "Loss"),
        "parameters": charts.accuracy_by_parameters(
            [record("full", 10**6), record("lora", 10**5)], record("tfidf", 4312, 0.8)
        ),
        "confusion": charts.confusion("full", [[5, 2], [0, 9]], ["ham", "spam"], 0),
        "calibration": charts.calibration("full", bins, 0),
        "precision": charts.precision_recall({"full": operating(2)}, operating(1)),
        "tuning_lora": charts.tuning(
            "lora", trials(), {"learning_rate": 0.002}, {"learning_rate"}, 1
        ),
    }


def operating(seeds: int) -> charts.Operating:
    """A curve of more points than are drawn for each seed."""
    recall = np.linspace(0.001, 1, 1000)
    return charts.Operating([(recall, 1 - 0.5 * recall)] * seeds, 0.8, 0.6)


def trials(n: int = 3) -> pd.DataFrame:
    """Two trainings of each of n rates, of which the last of the largest rate has diverged."""
    rates = np.repeat(0.001 * 2.0 ** np.arange(n), 2)
    loss = np.where(np.arange(2 * n) == 2 * n - 1, np.nan, 0.1 + 0.01 * np.arange(2 * n))
    return pd.DataFrame(
        {
            "trial": np.repeat(np.arange(n), 2),
            "learning_rate": rates,
            "lora.bias": ["none", "all"] * n,
            "seed": [101, 102] * n,
            "validation_loss": loss,
            "status": np.where(np.isnan(loss), "diverged", "finished"),
        }
    )


def titles(svg: str) -> list[str]:
    return [title.text or "" for title in ElementTree.fromstring(svg).iter(f"{SVG}title")]


@pytest.mark.parametrize("name", ["loss", "parameters", "confusion", "calibration"])
def test_a_chart_is_vector_xml_in_the_colour_of_the_page(name: str):
    text = drawn()[name]
    root = ElementTree.fromstring(text)
    assert root.tag == f"{SVG}svg"
    width, height = (float(side) for side in root.attrib["viewBox"].split()[2:])
    assert (float(root.attrib["width"]), float(root.attrib["height"])) == (2 * width, 2 * height)
    assert "currentColor" in text
    assert charts.INK not in text
    assert "<image" not in text
    assert "metadata" not in text
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert text == drawn()[name]


def test_a_pointer_is_told_the_value_of_every_point():
    found = {name: titles(svg) for name, svg in drawn().items()}
    assert "full, epoch 5: train loss 0.036 nats" in found["loss"]
    assert "full, epoch 0: validation loss 1.58 nats" in found["loss"]
    # Ten points of one curve and two of the level line, in each of two panels.
    assert len(found["loss"]) == 24
    assert "lora: 93.0 % (90.0\N{EN DASH}95.0), 100,000 trained parameters" in found["parameters"]
    assert found["confusion"] == [
        "5 of 7 ham taken for ham (71.4 %)",
        "2 of 7 ham taken for spam (28.6 %)",
        "0 of 9 spam taken for ham (0.0 %)",
        "9 of 9 spam taken for spam (100.0 %)",
    ]
    assert found["calibration"] == ["7 answers of confidence 95.0 % on average: 85.7 % right"]


def test_the_classes_of_confusion_matrices_are_those_that_all_methods_confuse_most():
    first, second = np.diag([5] * 30), np.diag([5] * 30)
    first[28, 29] = second[0, 1] = 4
    first[2, 3] = second[2, 3] = 3
    kept = charts.most_confused([first.tolist(), second.tolist()])
    assert len(kept) == charts.MOST_CLASSES
    assert {0, 1, 2, 3, 28, 29} <= set(kept)
    assert kept == sorted(kept)


def texts_of(svg: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_matrix_names_its_classes_whole_however_long_they_are():
    names = [f"the_wrong_exchange_rate_for_a_cash_withdrawal_{i}" for i in range(20)]
    kept = range(3, 15)
    svg = charts.confusion("full", np.diag([7] * 20).tolist(), names, 0, kept)
    words = "".join(texts_of(svg))
    for number, place in enumerate(kept, start=1):
        assert f"{number} {names[place]}" in words
    assert "\N{HORIZONTAL ELLIPSIS}" not in words
    assert "classified as, by number" in words


def test_a_point_lies_where_its_tip_lies():
    # Both are of the same epoch and loss, one drawn by matplotlib, one placed beside it.
    frame = pd.DataFrame({"epoch": [0.0, 5.0], "train_loss": [1.0, 0.1], "validation_loss": 0.5})
    text = charts.curves({"full": frame}, "loss", "Loss")
    curve = re.search(r'class="m0"[^>]*>\s*<path d="M ([\d.]+) ([\d.]+)', text)
    circle = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)"', text)
    assert curve is not None
    assert circle is not None
    expected = [float(part) for part in curve.groups()]
    assert [float(part) for part in circle.groups()] == pytest.approx(expected, abs=0.01)


def test_behind_the_mean_of_seeds_lies_a_band_from_the_lowest_to_the_highest():
    frame = history(3)
    for column in ("train_loss", "validation_loss"):
        ends = {f"{column}_low": frame[column] / 2, f"{column}_high": frame[column] * 2}
        frame = frame.assign(**ends)
    text = charts.curves({"full": frame}, "loss", "Loss")
    assert "full, epoch 5: train loss 0.036 nats, seeds 0.018 nats to 0.072 nats" in titles(text)
    # In each of two panels a band and a curve of the method, and what leads to its name.
    assert text.count("fill-opacity: 0.18") == 2
    assert len(re.findall(r'class="m0"', text)) == 2 + len(
        re.findall(r'class="m0"', charts.curves({"full": history(3)}, "loss", "Loss"))
    )
    assert "fill-opacity: 0.18" not in charts.curves({"full": history(3)}, "loss", "Loss")


def test_the_counts_of_several_seeds_have_their_shares_beside_them():
    matrix = [[5, 2], [0, 9]]
    svg = charts.confusion("full", matrix, ["ham", "spam"], 0, shares=True)
    assert {"71.4 %", "28.6 %", "100.0 %"} <= set(texts_of(svg))
    assert "71.4 %" not in texts_of(charts.confusion("full", matrix, ["ham", "spam"], 0))


def test_a_long_curve_has_no_more_tips_than_a_pointer_can_tell_apart():
    text = charts.curves({"full": history(1000)}, "loss", "Loss")
    assert len(titles(text)) == 2 * 40
    assert any("epoch 5:" in title for title in titles(text))


def test_everything_of_a_method_can_be_hidden():
    text = drawn()["parameters"]
    for element in ElementTree.fromstring(text).iter(f"{SVG}g"):
        for style in (child.get("style", "") for child in element.iter()):
            if charts.colour(1).lower() in style and element.get("id", "").count("m1-"):
                assert element.get("class") == "m1"
    assert len(re.findall(r'class="m1"', text)) >= 3
    assert 'class="tip m1"' in text


@pytest.mark.parametrize(
    ("first", "last"),
    [(0.79, 0.036), (0.7, 0.15), (0.694, 0.691), (0.7, 1e-5), (2.3, 0.9), (0.5, 0.5)],
)
def test_a_loss_axis_has_ticks_enough_to_read_and_no_crowd(first: float, last: float):
    loss = np.geomspace(first, last, 10)
    frame = {"epoch": np.arange(10), "train_loss": loss, "validation_loss": loss}
    text = charts.curves({"full": pd.DataFrame(frame)}, "loss", "Loss")
    ticks = re.findall(r'id="loss-ytick_\d+"', text)
    assert 3 <= len(ticks) / 2 <= 8


def test_every_trial_tells_its_loss_or_that_it_diverged():
    text = drawn()["tuning_lora"]
    tips = re.findall(r"<title>(trial [^<]*)</title>", text)
    assert len(tips) == 6
    assert tips[2] == "trial 1, seed 101: learning_rate 0.002, validation loss 0.12 nats"
    assert tips[5] == "trial 2, seed 102: learning_rate 0.004, diverged"
    assert "learning_rate, chosen: 0.002" in text
    # The cross of what diverged is inside the panel: a pointer finds it, and nothing cuts it off.
    heights = [float(y) for y in re.findall(r'<circle cx="[^"]*" cy="([^"]*)"', text)]
    assert heights[5] < min(heights[:5])


def test_several_settings_have_a_panel_each_and_words_are_places():
    chosen = {"learning_rate": 0.001, "lora.bias": "all"}
    text = charts.tuning("lora", trials(9), chosen, {"learning_rate"}, 0)
    assert text.count("chosen: ") == 2
    assert "lora.bias, chosen: all" in text
    assert len(re.findall(r"<title>trial ", text)) == 36


def test_a_search_in_which_everything_diverged_is_drawn():
    gone = trials().assign(validation_loss=np.nan, status="diverged")
    text = charts.tuning("lora", gone, {"learning_rate": 0.001}, set(), 0)
    assert text.count(", diverged</title>") == 6


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=12))
def test_labels_are_apart_in_order_and_on_average_where_they_belong(heights: list[float]):
    places = spread(heights)
    order = sorted(range(len(heights)), key=lambda i: (heights[i], i))
    gaps = np.diff([places[i] for i in order])
    assert (gaps >= LINE - 1e-6).all()
    assert np.mean(places) == pytest.approx(np.mean(heights), abs=1e-6)


def test_labels_with_room_stay_where_they_are():
    assert spread([0.0, 50.0, 20.0]) == [0.0, 50.0, 20.0]


@pytest.mark.parametrize(
    ("name", "shown"),
    [("tr\u00e8s\u00a0bien", "tr\u00e8s bien"), ("a\u200cb", "ab"), ("a\u0007b", "a\ufffdb")],
)
def test_a_name_is_drawn_without_what_is_invisible(name: str, shown: str):
    assert printable(name) == shown
