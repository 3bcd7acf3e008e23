"""What MLflow's page of the experiment is told to show, as MLflow's own page reads it."""

import json
from pathlib import Path

from lora_compare.project.lineage import Pipeline
from lora_compare.tracking.records import current_records
from lora_compare.tracking.view import NOTE, SHARED_VIEW, changes, experiment_tags
from tracked_project import write_project


def tags_of(root: Path) -> dict[str, str]:
    return experiment_tags(current_records(Pipeline(*write_project(root)))[0])


def test_the_view_has_a_name_for_the_menu_and_the_columns_that_matter(tmp_path: Path) -> None:
    view = json.loads(tags_of(tmp_path)[SHARED_VIEW])
    # Without all four of them MLflow's menu of views leaves a view out.
    assert {key: type(value) for key, value in view.items()} == {
        "name": str,
        "createdAt": int,
        "updatedAt": int,
        "state": str,
    }
    columns = json.loads(view["state"])["selectedColumns"]
    assert columns[:2] == ["metrics.`test/accuracy`", "metrics.`params/trainable`"]
    assert "params.`method.lora.r`" in columns
    assert "params.`training.epochs`" not in columns


def test_the_same_project_gives_the_same_tags(tmp_path: Path) -> None:
    tags = tags_of(tmp_path)
    assert changes(tags, tags_of(tmp_path)) == {}


def test_a_new_verdict_replaces_the_old_one_and_not_what_a_reader_wrote(tmp_path: Path) -> None:
    tags = tags_of(tmp_path)
    newer = {NOTE: f"**lora is better than full.** {tags[NOTE]}"}
    assert changes({}, newer) == newer
    assert changes(tags, newer) == newer
    assert changes({NOTE: "Ours: ask Ada before you delete a run."}, newer) == {}
    assert changes({NOTE: f"{tags[NOTE]}\n\nAsk Ada."}, newer) == {}
