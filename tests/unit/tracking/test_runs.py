"""What a run is of."""

import pytest

from lora_compare.tracking.runs import BASE, DATA, subject


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("bundled", "bundled"),
        ("inputs/text/product reviews.v2.csv", "product_reviews_v2"),
        ("inputs/text/tickets.jsonl.gz", "tickets"),
        ("https://example.org/data/imdb.parquet?version=2", "imdb"),
        ("https://me:secret@example.org/", "example"),
    ],
)
def test_a_data_set_is_called_by_its_sources_name(source: str, name: str) -> None:
    tags = subject({"data.source": source, "model.name": "gpt2-small"})
    assert tags == {DATA: name, BASE: "gpt2-small"}


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("FacebookAI/xlm-roberta-base", "FacebookAI-xlm-roberta-base"),
        ("inputs/models/my-bert", "my-bert"),
        ("inputs/models/mine/v2", "mine-v2"),
    ],
)
def test_a_base_model_is_called_without_a_slash(model: str, name: str) -> None:
    assert subject({"data.source": "bundled", "model.name": model})[BASE] == name
