"""Machines and versions in the report are those of the files of training and evaluation."""

from pathlib import Path

from comparison_inputs import write_inputs
from lora_compare.comparison.evidence import load_evidence
from lora_compare.project.checksums import seal
from lora_compare.project.files import read_json, write_json
from lora_compare.report import versions


def test_versions_are_those_of_the_files(tmp_path: Path):
    paths, params = write_inputs(tmp_path, n=40)
    cost = read_json(paths.cost_copy("lora"))
    cost["environment"]["versions"]["torch"] = "2.14.0"
    write_json(paths.cost_copy("lora"), cost)
    seal(paths.training("lora"))
    found = versions.environments(load_evidence(paths, params))
    assert found["training"]["torch"] == {"full": "2.13.0", "lora": "2.14.0"}
    assert found["training"]["system"] == {"full": "Linux x86_64", "lora": "Linux x86_64"}
    assert found["evaluation"]["numpy"] == {"full": "2.3.0", "lora": "2.3.0"}
    assert not versions.alike(found["training"])
    assert versions.alike(found["evaluation"])


def test_a_file_of_an_earlier_version_has_no_versions_to_show(tmp_path: Path):
    paths, params = write_inputs(tmp_path, ("lora",), n=40)
    cost = read_json(paths.cost_copy("lora"))
    del cost["environment"]
    write_json(paths.cost_copy("lora"), cost)
    seal(paths.training("lora"))
    found = versions.environments(load_evidence(paths, params))["training"]
    assert list(found) == ["device", "arithmetic", "CPU threads"]
