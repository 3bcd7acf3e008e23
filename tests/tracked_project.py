"""A project folder as the stages leave it behind, written in a moment."""

import json
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from lora_compare.params import Params, load_params
from lora_compare.project.paths import Paths
from lora_compare.project.progress import SILENT, Progress
from lora_compare.project.seeds import save_seeds
from lora_compare.serving.publication import SyncResult, registering, sync
from lora_compare.tracking.delivery import Delivery
from lora_compare.tracking.mailbox import Letter, Mailbox
from lora_compare.tracking.postman import Postman
from lora_compare.tracking.server import Server
from lora_compare.tracking.store import quietly
from lora_compare.tracking.tracker import Tracker, tracker
from lora_compare.training.tuning.trials import NOT_SEARCHED, write_choice
from small_project import ROOT, environment
from verdict_inputs import make_comparison, make_pair

EXPERIMENT = "a comparison"
SEED = 123
RUNS = ["base_model", "baseline", "compare", "download", "full", "lora", "pipeline", "split"]

STAGES = [
    *("download", "split", "base_model", "baseline", "finetune@full", "evaluate@full"),
    *("finetune@lora", "evaluate@lora", "compare"),
]

PARAMS = """
data: {source: bundled, text_column: text, label_column: label}
split: {deduplicate: exact, balance: undersample, train: 0.7, validation: 0.1, seed: 123}
model: {name: gpt2-nano, weights: pretrained}
classifier: {position: last_token, bias: true}
training: {epochs: 2, batch_size: 8, seeds: [123]}
methods:
  full: {trainable: all, learning_rate: 5.0e-5, weight_decay: 0.1}
  lora:
    trainable: lora
    learning_rate: 8.0e-4
    weight_decay: 0.1
    lora: {r: 16, lora_alpha: 16, lora_dropout: 0.0, target_modules: all-linear, bias: none}
comparison: {metric: accuracy}
tracking: {experiment: a comparison}
"""

ACCURACY = {"full": 0.97, "lora": 0.96, "untuned": 0.5, "tfidf": 0.95}
TRAINABLE = {"full": 1000, "lora": 100}
STEPS = range(0, 50, 10)
CURVES = ("train/loss", "train/accuracy", "validation/loss", "validation/accuracy")


def write_project(root: Path, experiment: str = EXPERIMENT) -> tuple[Paths, Params]:
    """Write params.yaml, dvc.yaml and the outputs of every stage below `root`."""
    paths = Paths(root.resolve())
    _write(paths.params, PARAMS.replace(EXPERIMENT, experiment))
    shutil.copyfile(ROOT / "dvc.yaml", root / "dvc.yaml")
    for stage in ("download", "finetune", "evaluate"):
        _write(root / "stages" / f"{stage}.py", f"# {stage}\n")
    _write(paths.messages, "label\ttext\nham\thello\n")
    _write(paths.provenance, {"source": "bundled", "rows": 1, "classes": {"ham": 1}})
    for split in ("train", "validation", "test"):
        _write(paths.split(split), f"Label,Text\n0,{split}\n")
        _write(paths.tokens(split), f"the tokens of {split}")
    _write(paths.metrics("split"), {"rows": 3, "duplicates_removed": 0})
    _write(paths.base / "config.json", {"name": "gpt2-nano", "parameters": 1000, "sha256": "0"})
    _write_weights(paths.base, 1000)
    _write(paths.metrics("baseline"), {name: _metrics(name) for name in ("untuned", "tfidf")})
    for method in ("full", "lora"):
        write_method(paths, method)
    write_comparison(paths)
    return paths, load_params(paths.params)


def write_method(
    paths: Paths,
    method: str,
    seconds: float = 3.0,
    loss: float = 0.7,
    seeds: Sequence[int] = (SEED,),
) -> None:
    """Write what `finetune` and `evaluate` leave of one method: each seed begins with more loss."""
    config = {"trainable_parameters": TRAINABLE[method], "total_parameters": 1002}
    for seed in seeds:
        _write(paths.trained(method, seed) / "config.json", config)
        _write_weights(paths.trained(method, seed), TRAINABLE[method])
        _write(paths.predictions(method, seed), "text,label,predicted\nhello,ham,ham\n")
    save_seeds(paths.model(method), {seed: 0.1 + seed / 1000 for seed in seeds})
    rows = histories(loss, seeds)
    lines = [",".join(rows[0]), *(",".join(map(repr, row.values())) for row in rows)]
    _write(paths.history(method), "\n".join(lines) + "\n")
    cost = {"train_seconds": seconds, "peak_memory_bytes": 10**8, "device": "cpu", "threads": 2}
    _write(paths.cost(method), cost)
    _write(paths.cost_copy(method), cost)
    _write(paths.metrics(method), _seeded(method, seeds))
    write_choice(paths.tuning(method), NOT_SEARCHED)


def write_comparison(paths: Paths) -> None:
    """Write what `compare` leaves."""
    records = [
        {
            "method": name,
            "test_accuracy": ACCURACY[name],
            "test_accuracy_low": ACCURACY[name] - 0.02,
            "test_accuracy_high": ACCURACY[name] + 0.01,
            "trainable_parameters": TRAINABLE[name],
            "parameters_of_full": TRAINABLE[name] / TRAINABLE["full"],
            "train_seconds": 3.0,
            "peak_memory_bytes": 10**8,
            "artifact_bytes": 1200,
        }
        for name in ("full", "lora")
    ]
    reference = {"full": "full", "lora": "lora", "parameter_ratio": 0.1}
    caution = {"key": "stand_in", "sentence": "The base model is a stand-in."}
    pairs = [make_pair(difference=0.01, low=-0.012, high=0.03)]
    comparison = make_comparison(pairs, records=records, reference=reference, cautions=[caution])
    _write(paths.metrics("comparison"), comparison)
    _write(paths.report("html"), "<p>report</p>")
    for plot in ("curves.svg", "confusion_full.svg", "confusion_lora.svg"):
        _write(paths.plots / plot, f"<svg>{plot}</svg>")


def history(loss: float = 0.7, seed: int = SEED) -> list[dict[str, float]]:
    """Return the rows of a training of 40 steps that starts at `loss`."""
    return [
        {
            "seed": seed,
            "step": step,
            "epoch": step / 20,
            "learning_rate": 5e-05,
            "train_loss": loss / (1 + step),
            "train_accuracy": 0.5 + step / 100,
            "validation_loss": 1.1 * loss / (1 + step),
            "validation_accuracy": 0.5 + step / 120,
        }
        for step in STEPS
    ]


def histories(loss: float, seeds: Sequence[int]) -> list[dict[str, float]]:
    """Return the rows of one training after the other, each with more loss than the last."""
    return [row for i, seed in enumerate(seeds) for row in history(loss + i / 10, seed)]


def _seeded(method: str, seeds: Sequence[int]) -> dict[str, object]:
    """Return the metrics of a method: each seed has a hundredth less accuracy than the last."""
    metrics = _metrics(method)
    each = {
        str(seed): {split: {"accuracy": ACCURACY[method] - i / 100, "f1": 0.9} for split in metrics}
        for i, seed in enumerate(seeds)
    }
    if len(seeds) > 1:
        metrics = {split: {**figures, "accuracy_sd": 0.004} for split, figures in metrics.items()}
    return {**metrics, "seeds": list(seeds), "per_seed": each}


def _metrics(name: str) -> dict[str, dict[str, object]]:
    split = {
        "accuracy": ACCURACY[name],
        "accuracy_ci95": [ACCURACY[name] - 0.02, ACCURACY[name] + 0.01],
        "n": 100,
        "f1": 0.9,
        "auroc": 0.99,
        "log_loss": 0.1,
        "confusion_matrix": [[48, 2], [1, 49]],
    }
    return {"train": split, "validation": split, "test": split}


def _write_weights(folder: Path, parameters: int) -> None:
    size = 4 * parameters
    header = {"w": {"dtype": "F32", "shape": [parameters], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    folder.mkdir(parents=True, exist_ok=True)
    content = struct.pack("<Q", len(text)) + text + bytes(size)
    (folder / "model.safetensors").write_bytes(content)


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def label(run: Any) -> str:
    """Return what a run is of: its name without a pipeline's key or an experiment's name."""
    name = str(run.info.run_name)
    return name if " seed " in name else name.split()[0]  # a trial's has one too


class Shown:
    """What a store shows of an experiment."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri, self.experiment = uri, experiment

    def client(self) -> Any:
        return store_client(self.uri)

    def runs(self) -> list[Any]:
        client = self.client()
        experiment = client.get_experiment_by_name(self.experiment)
        return list(client.search_runs([experiment.experiment_id])) if experiment else []

    def names(self) -> list[str]:
        return sorted(label(run) for run in self.runs())

    def run(self, name: str) -> Any:
        (run,) = [run for run in self.runs() if label(run) == name]
        return run

    def content(self) -> dict[str, Any]:
        """All that the store shows: every run, and the points of what has a curve."""
        client, shown = self.client(), {}
        for run in self.runs():
            number = run.info.run_id
            curves = [key for key in CURVES if key in run.data.metrics]
            points = {key: len(client.get_metric_history(number, key)) for key in curves}
            shown[number] = (run.info.status, run.data.to_dictionary(), points)
        return shown

    def artifacts(self, name: str, folder: str | None = None) -> dict[str, bytes]:
        """The files of a run and their bytes, downloaded."""
        client, run_id = self.client(), self.run(name).info.run_id
        found = {}
        for file in client.list_artifacts(run_id, folder):
            if file.is_dir:
                found |= self.artifacts(name, file.path)
            else:
                found[file.path] = Path(client.download_artifacts(run_id, file.path)).read_bytes()
        return found

    def duration(self, name: str) -> int | None:
        """The milliseconds that MLflow shows; None where it shows none."""
        info = self.run(name).info
        return info.end_time and info.end_time - info.start_time

    def curve(self, name: str, key: str) -> list[tuple[int, float]]:
        points = self.client().get_metric_history(self.run(name).info.run_id, key)
        return sorted((point.step, point.value) for point in points)

    def files(self, name: str, folder: str | None = None) -> list[str]:
        found = self.client().list_artifacts(self.run(name).info.run_id, folder)
        return sorted(file.path for file in found)


class TrackedProject(Shown):
    """A synthetic project and what its store shows."""

    def __init__(self, root: Path, uri: str = "", experiment: str = EXPERIMENT) -> None:
        self.paths, self.params = write_project(root, experiment)
        super().__init__(uri or f"sqlite:///{self.paths.root / 'mlflow.db'}", experiment)
        self._postmen: dict[str, Postman] = {}

    @classmethod
    def with_store(cls, root: Path, store: Path) -> "TrackedProject":
        """Make a project in `root` whose store is a copy of `store`."""
        root.mkdir()
        shutil.copyfile(store, root / "mlflow.db")
        return cls(root)

    @contextmanager
    def stage(
        self, stage: str, progress: Progress = SILENT, deliver: bool = True
    ) -> Iterator[Tracker]:
        """A stage that runs; a postman makes a round when it starts and when it has ended."""
        name, _, method = stage.partition("@")
        hire = self.deliver if deliver else lambda: None
        with tracker(self.paths, self.params, name, progress, hire, method or None) as tracked:
            yield tracked

    def log(
        self,
        *stages: str,
        progress: Progress = SILENT,
        seconds: float = 0.0,
        deliver: bool = True,
    ) -> None:
        for stage in stages:
            with self.stage(stage, progress, deliver) as tracked:
                tracked.finish(seconds)

    def deliver(self) -> None:
        """Do what a postman does in one round."""
        server = Server.configured(self.paths)
        if server is not None:
            if server.uri not in self._postmen:
                delivery = Delivery(server, registering(server))
                self._postmen[server.uri] = Postman(server, delivery)
            self._postmen[server.uri].make_round()

    def kill_training(self, method: str, rows: list[dict[str, Any]]) -> None:
        """Show rows of a training whose process then dies."""
        own = Tracker(self.paths, self.params, "finetune", method, SILENT, lambda: None)
        own.start()
        for row in rows:
            own.log(row)
        self.deliver()
        own.close()

    def use_seeds(self, *seeds: int) -> None:
        """Train every method with these seeds: in params.yaml and in what its stages left."""
        text = re.sub(r"seeds: \[.*?\]", f"seeds: {[*seeds]}", self.paths.params.read_text())
        self.paths.params.write_text(text)
        self.params = load_params(self.paths.params)
        for method in ("full", "lora"):
            shutil.rmtree(self.paths.model(method))
            write_method(self.paths, method, seeds=seeds)
        found = json.loads(self.paths.metrics("comparison").read_text())
        for record in found["methods"]:
            record["test_accuracy_sd"] = 0.004
        _write(self.paths.metrics("comparison"), found)

    def search(self, method: str) -> None:
        """Write what a search of one setting with two values and two seeds leaves."""
        params = self.paths.params.read_text()
        line = f"  {method}: {{" if method == "full" else f"  {method}:\n    "
        search = "search: {learning_rate: {low: 1.0e-4, high: 1.0e-3, log: true}}"
        joint = ", " if method == "full" else "\n    "
        if search not in params:
            self.paths.params.write_text(params.replace(line, f"{line}{search}{joint}"))
        self.params = load_params(self.paths.params)
        trials, rows = [], []
        for trial, (rate, loss) in enumerate(((0.0001, 0.3), (0.001, None)), start=1):
            for seed in (101, 102):
                status = "finished" if loss else "diverged"
                figures = {
                    "validation_loss": loss or "",
                    "validation_accuracy": 0.9 if loss else "",
                }
                values = {"trial": trial, "learning_rate": rate, "seed": seed}
                trials.append({**values, **figures, "status": status})
                rows += [{"trial": trial, **row} for row in history(0.5, seed)]
        choice = {**NOT_SEARCHED, "settings": {"learning_rate": 0.0001}, "searched": True}
        write_choice(self.paths.tuning(method), choice, {"trials": trials, "history": rows})

    def log_pipeline(self, progress: Progress = SILENT, deliver: bool = True) -> None:
        self.log("download", "split", "base_model", "baseline", progress=progress, deliver=deliver)
        for method in ("full", "lora"):
            with self.stage(f"finetune@{method}", progress, deliver) as tracked:
                for row in histories(0.7, self.params.training.seeds):
                    tracked.log(row)
                    if deliver:
                        self.deliver()
                tracked.finish()
            self.log(f"evaluate@{method}", progress=progress, deliver=deliver)
        self.log("compare", progress=progress, deliver=deliver)

    def sync(self) -> SyncResult:
        return sync(self.paths, self.params)

    def letters(self) -> list[Letter]:
        return Mailbox(self.paths.project / ".tracking").letters()

    def wait(self) -> None:
        """Wait until a postman has delivered everything."""
        wait_until(lambda: not self.letters())

    def wait_or_deliver(self) -> None:
        """Wait likewise, and deliver what a postman left that would have stayed too long.

        On a slow machine, making a fresh store may take longer than one stays.
        """
        wait_until(lambda: not self.letters() or not postmen(self.paths.root))
        self.deliver()

    def waiting(self) -> list[str]:
        return [letter.label for letter in self.letters()]


def store_client(uri: str) -> Any:
    """Return MLflow's client of a store."""
    # Importing MLflow and opening a store warn of what SQLAlchemy deprecates.
    with quietly():
        from mlflow.tracking import MlflowClient

        return MlflowClient(uri)


def postmen(folder: Path) -> list[psutil.Process]:
    """Return the processes that deliver letters of the project in `folder`."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            is_postman = "lora_compare.cli.postman" in (process.info["cmdline"] or ())
            if is_postman and Path(process.cwd().removesuffix(" (deleted)")) == folder:
                found.append(process)
    return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def wait_until(reached: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until `reached` returns what counts as true; it must within `seconds`."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


LOG_STAGE = """
import sys
from functools import partial
from pathlib import Path
from lora_compare.cli import postman
from lora_compare.params import load_params
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress
from lora_compare.tracking.tracker import tracker
paths = Paths(Path(sys.argv[1]))
stage, _, method = sys.argv[2].partition("@")
hire = partial(postman.hire, paths)
with tracker(paths, load_params(paths.params), stage, Progress(), hire, method or None) as own:
    own.finish()
"""


def log_at_once(project: TrackedProject, *stages: str) -> None:
    """Log stages in processes of their own that start together and have nothing to warn of.

    But that on a slow machine a comparison may be shown after it has stopped waiting for that.
    """
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOG_STAGE, str(project.paths.root), stage],
            env=environment(MLFLOW_TRACKING_URI=project.uri),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for stage in stages
    ]
    printed = [process.communicate(timeout=150)[0] for process in processes]
    told = [line for text in printed for line in text.splitlines()]
    assert [line for line in told if "Traceback" in line] == []
    assert [line for line in told if "warning" in line and "takes too long" not in line] == []
    assert [process.returncode for process in processes] == [0] * len(stages)


class Lines(Progress):
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)
