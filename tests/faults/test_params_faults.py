"""Mistakes in params.yaml: all of them named at once, before any stage starts."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from dvc.utils.serialize import dumps_yaml, loads_yaml

from dvc_runs import repro
from faults.commands import files_of, refusal, succeed
from small_project import ROOT, copy_project, small_params, write_settings

STAGES = {
    "download": (),
    "split": (),
    "base_model": (),
    "baseline": (),
    "tune": ("full",),
    "finetune": ("full",),
    "evaluate": ("full",),
    "compare": (),
}

Edit = Callable[[dict], object]


def edited(edit: Edit) -> str:
    values = loads_yaml(small_params())
    edit(values)
    return str(dumps_yaml(values))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_settings(tmp_path)


def adapter(**settings: object) -> Edit:
    return lambda p: p["methods"]["lora"]["lora"].update(settings)


MISTAKES: dict[str, tuple[Edit, list[str]]] = {
    "unknown key": (
        lambda p: p["training"].update(epoch=5),
        ["training.epoch: unknown key"],
    ),
    "unknown key that no stage reads": (
        lambda p: p["tracking"].update(experiments="x"),
        ["tracking.experiments: unknown key"],
    ),
    "missing key": (lambda p: p["split"].pop("seed"), ["split.seed: missing"]),
    "missing section": (lambda p: p.pop("classifier"), ["classifier: missing"]),
    "a number that is text": (
        lambda p: p["methods"]["full"].update(learning_rate="5e-5"),
        ["methods.full.learning_rate: should be a number, not '5e-5'"],
    ),
    "negative rank": (
        adapter(r=-3),
        ["methods.lora.lora.r: should be greater than or equal to 1, not -3"],
    ),
    "rank larger than the layer": (
        adapter(r=129),
        ["methods.lora.lora.r: the rank is larger than the layer", "at most 128, not 129"],
    ),
    "rank larger than the head": (
        adapter(init_lora_weights="pissa", r=129, exclude_modules=["score"]),
        ["lora.r: ", "at most 128 for init_lora_weights: pissa, not 129"],
    ),
    "rank of one layer": (
        adapter(rank_pattern={"mlp.c_fc": 513}),
        ["lora.rank_pattern: the rank is larger than the layer gpt.h.0.mlp.c_fc", "at most 512"],
    ),
    "patterns that give one layer two values": (
        adapter(
            rank_pattern={"c_proj": 2, "mlp.c_proj": 6}, alpha_pattern={"c_fc": 2.0, "mlp.c_fc": 3}
        ),
        [
            "2 mistakes",
            "lora.rank_pattern: two patterns give gpt.h.0.mlp.c_proj different values",
            "c_proj: 2 and mlp.c_proj: 6",
            "lora.alpha_pattern: two patterns give gpt.h.0.mlp.c_fc different values",
        ],
    ),
    "unknown target module": (
        adapter(target_modules=["query", "value"]),
        ["lora.target_modules: no module is called query, value; expected some of c_attn, c_fc"],
    ),
    "target that is no expression for a path": (
        adapter(target_modules="q_proj"),
        ["lora.target_modules: no module is called q_proj", "write a list: [q_proj]"],
    ),
    "unknown block": (
        adapter(layers_to_transform=[0, 4]),
        ["lora.layers_to_transform: ", "expected 0, 1, 2, 3, not 4"],
    ),
    "unknown modules everywhere": (
        adapter(
            exclude_modules=["a"],
            modules_to_save=["b"],
            rank_pattern={"c": 1},
            alpha_pattern={"d": 1},
        ),
        [
            "4 mistakes",
            "lora.exclude_modules: no module is called a",
            "lora.modules_to_save: no module is called b",
            "lora.rank_pattern: no module is called c",
            "lora.alpha_pattern: no module is called d",
        ],
    ),
    "nothing left to adapt": (
        adapter(exclude_modules=".*"),
        ["methods.lora.lora.target_modules: there is no layer to adapt"],
    ),
    "a pattern that is none inside another": (
        adapter(rank_pattern={"(?i)c_fc": 4}),
        ["lora.rank_pattern", "no regular expression"],
    ),
    "empty methods": (lambda p: p["methods"].clear(), ["methods: name at least one method"]),
    "no methods": (lambda p: p.update(methods=None), ["methods: name at least one method"]),
    "methods that are a list": (lambda p: p.update(methods=["full"]), ["methods: "]),
    "method names that are paths": (
        lambda p: p["methods"].update(
            {"a/b": p["methods"]["full"], "..": p["methods"]["full"], "-x": p["methods"]["full"]}
        ),
        ["3 mistakes", "'a/b' must be a letter", "'..' must be", "'-x' must be", "a file name"],
    ),
    "method names that are taken": (
        lambda p: p["methods"].update(base=p["methods"]["full"], LORA=p["methods"]["full"]),
        ["2 mistakes", "'base' is taken by a file", "upper and lower case, not lora, LORA"],
    ),
    "method names that are numbers": (
        lambda p: p["methods"].update({1: p["methods"]["full"]}),
        ["methods.1: the method name '1' must be a letter, then letters"],
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_row_26_a_mistake_is_named_with_its_key_and_what_is_allowed(
    project: Path, name: str
) -> None:
    edit, expected = MISTAKES[name]
    (project / "params.yaml").write_text(edited(edit))
    # What `make repro` does first, and what a first `dvc repro` does.
    for command in ("check", "download"):
        message = refusal(project, command)
        assert not [part for part in expected if part not in message], message


def test_row_26_every_mistake_is_named_at_once(project: Path) -> None:
    def edit(params: dict) -> None:
        params["data"].update(sha256="abc")
        params["split"].update(seed=-1, train=0.9, validation=0.2)
        params["model"].update(seed=-1)
        params["training"].update(epochs=1.5)
        methods = params["methods"]
        methods["full"].update(trainable="lora", learning_rate="2e-4")
        methods["lora"].update(weight_decay=-1)
        methods["lora"]["lora"].update(target_modules=["query"], r=4, layers_to_transform=[0])
        methods["a b"] = {"trainable": "imported", "learning_rate": 0.1}

    (project / "params.yaml").write_text(edited(edit) + "model: {}\n")
    message = refusal(project, "check")
    expected = [
        "data.sha256: ",
        "split.seed: ",
        "split.validation: train + validation must leave room",
        "training.epochs: ",
        "methods.full.learning_rate: ",
        "methods.full.lora: trainable: lora needs a section lora",
        "methods.lora.weight_decay: ",
        "methods.a b: the method name 'a b' must be",
        "methods.a b.learning_rate: trainable: imported trains nothing",
        "methods.a b.adapter: missing",
        "methods.a b.sha256: missing",
        "methods.a b.config_sha256: missing",
        "the key 'model' stands twice",
    ]
    assert not [part for part in expected if part not in message], message
    (project / "params.yaml").write_text(edited(edit))
    message = refusal(project, "check")
    expected = ["model.seed: ", "methods.lora.lora.target_modules: no module is called query"]
    assert not [part for part in [*expected, "14 mistakes"] if part not in message], message


def test_row_26_a_rank_beyond_the_number_of_classes_stops_the_first_stage_that_knows_it(
    project: Path,
) -> None:
    text = edited(adapter(init_lora_weights="olora", r=2))
    (project / "params.yaml").write_text(text)
    succeed(project, "check")
    succeed(project, "download")
    (project / "params.yaml").write_text(text.replace("r: 2", "r: 3"))
    for command in ("check", "download"):  # both read the file, and know how many classes it has
        message = refusal(project, command)
        assert "methods.lora.lora.r: the rank is larger than the layer score" in message
        assert "at most 2 for init_lora_weights: olora, not 3" in message
    (project / "params.yaml").write_text(
        text.replace("r: 2", "r: 3").replace("inputs/text/messages.csv", "bundled")
    )
    assert "layer score" in refusal(project, "check")


@pytest.mark.parametrize("stage", STAGES)
def test_row_26_no_stage_starts_with_a_mistake_in_any_section(project: Path, stage: str) -> None:
    (project / "params.yaml").write_text(edited(adapter(target_modules=["query"])))
    message = refusal(project, stage, *STAGES[stage])
    assert "methods.lora.lora.target_modules: no module is called query" in message
    # DVC may have removed outputs by then: no claim that nothing happened.
    assert "comes back with dvc repro" in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file: it is empty: cp recipes/default.yaml"),
        (b"- 1\n", "the file: should be sections of settings"),
        (b"# nothing\n", "the file: it is empty"),
        (b"a: [", "not valid YAML"),
        (b"a: 1\n\x00", "not valid YAML"),
        (b"\xff\xfea: 1", "not UTF-8"),
        (b"a: " + b"[" * 500, "nested too deeply"),
        (b"a: 2024-13-45\n", "not what its form or tag says"),
        (b"a: !!int x\n", "not what its form or tag says"),
        (b"a: !!bool x\n", "not what its form or tag says"),
        (b"a: !!int\n", "not what its form or tag says"),
        (b"a: !!timestamp x\n", "failed to construct timestamp"),
        (b"a: !!python/object/apply:os.system [ls]\n", "not valid YAML"),
        (b"? [a]\n: 1\n", "Keys should be strings"),
        (b"a: &a [*a]\n", "a: unknown key"),
        (
            b"a: &a [x,x,x,x,x,x,x,x,x]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9))
                for c in range(ord("b"), ord("n"))
            )
            + b"methods: {full: {trainable: *m}}\n",
            "methods.full.trainable: ",
        ),
    ],
)
def test_row_26_a_file_that_is_no_mapping_of_settings_is_refused(
    project: Path, content: bytes, expected: str
) -> None:
    (project / "params.yaml").write_bytes(content)
    for command in ("check", "download"):
        message = refusal(project, command)
        assert expected in message
        # A few lines of YAML can stand for a list of a billion.
        assert len(message) < 5000


@pytest.mark.slow
def test_row_26_dvc_repro_writes_nothing(tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    (project / "params.yaml").write_text(edited(adapter(r=129)))
    before = files_of(project)
    process = repro(project)
    output, _ = process.communicate()
    assert process.returncode != 0
    assert "methods.lora.lora.r: the rank is larger than the layer" in output
    assert "Traceback" not in output
    new = {name for name in files_of(project) if name not in before}
    assert not [name for name in new if not name.startswith((".dvc", ".git", "src"))]


def test_row_26_the_summary_shows_what_there_is_while_params_have_a_mistake(
    project: Path,
) -> None:
    (project / "params.yaml").write_text(edited(adapter(target_modules=["query"])))
    assert "params.yaml has 1 mistake" in refusal(project, "summary")
    shutil.copytree(ROOT / "metrics", project / "metrics")
    printed = succeed(project, "summary")
    assert "accuracy macro-F1 parameters" in printed
    assert "may be out of date: params.yaml has 1 mistake." in printed
    assert "lora-compare check" in printed
    (project / "params.yaml").unlink()
    assert "There is no project here" in refusal(project, "summary")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c.pop("headline"), "no headline"),
        (
            lambda c: c.clear(),
            "no headline, recommendation, cautions, methods, baselines, pairs, reference",
        ),
        (None, "Expecting"),
    ],
)
def test_row_26_a_comparison_of_another_version_says_how_to_make_it_anew(
    project: Path, change: Callable[[dict], object] | None, expected: str
) -> None:
    shutil.copytree(ROOT / "metrics", project / "metrics")
    path = project / "metrics/comparison.json"
    content = json.loads(path.read_text())
    if change:
        change(content)
    path.write_text(json.dumps(content) if change else "{")
    shutil.copy(ROOT / "README.md", project)
    for arguments in ((), ("--write", "README.md")):
        message = refusal(project, "summary", *arguments)
        assert expected in message
        assert "dvc repro --force compare" in message
