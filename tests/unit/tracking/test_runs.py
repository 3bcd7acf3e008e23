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
        ({"train": "inputs/text/old.csv", "test": "inputs/text/new.csv"}, "old"),
    ],
)
def test_a_data_set_is_called_by_its_sources_name(source: object, name: str) -> None:
    tags = subject({"data.source": source, "model.name": "gpt2-small"})
    assert tags == {DATA: name, BASE: "gpt2-small"}
