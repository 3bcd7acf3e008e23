"""Every path that the pipeline reads or writes, named once."""

import os
from dataclasses import dataclass
from pathlib import Path

from lora_compare.errors import MissingArtifactError

SPLITS = ("train", "validation", "test")

TFIDF = "tfidf"
"""The baseline that is a model to use, like a method; no method may have its name."""


FOLD = "fold-"
"""What the name of the folder of a fold's own base begins with, in that of the first fold's."""


def seed_folder(seed: int | str) -> str:
    """Return the name of the folder of one training, in the folder of its method."""
    return f"seed-{seed}"


@dataclass(frozen=True)
class Paths:
    """The artefacts of one project folder; all paths are absolute.

    Attributes:
        root: The folder that holds params.yaml and dvc.yaml.
    """

    root: Path

    @classmethod
    def here(cls) -> "Paths":
        """Return the paths of the current folder, where DVC runs every stage."""
        return cls(Path.cwd().resolve())

    @property
    def project(self) -> Path:
        """The project's folder: not `root` where DVC runs an experiment in a copy of it."""
        return Path(os.environ.get("DVC_ROOT") or self.root).resolve()

    @property
    def params(self) -> Path:
        """The experiment's parameters."""
        return self.root / "params.yaml"

    @property
    def lock(self) -> Path:
        """DVC's record of what every stage read and wrote."""
        return self.root / "dvc.lock"

    @property
    def downloads(self) -> Path:
        """The folder of fetched source files, also for experiments; no output of a stage."""
        return self.project / ".downloads"

    @property
    def raw(self) -> Path:
        """The folder of the corpus."""
        return self.root / "data" / "raw"

    @property
    def messages(self) -> Path:
        """The whole corpus in the canonical format."""
        return self.raw / "messages.tsv"

    @property
    def provenance(self) -> Path:
        """Where the corpus came from, with checksums."""
        return self.raw / "provenance.json"

    @property
    def splits(self) -> Path:
        """The folder of the splits and the classes."""
        return self.root / "data" / "splits"

    def split(self, name: str) -> Path:
        """Return the CSV of one split: train, validation, test or unused."""
        return self.splits / f"{name}.csv"

    @property
    def classes(self) -> Path:
        """The names of the classes; a label in a split is an index into them."""
        return self.splits / "classes.json"

    def tokens(self, name: str) -> Path:
        """Return the token ids and class indices of train, validation or test."""
        return self.root / "data" / "tokens" / f"{name}.safetensors"

    @property
    def base(self) -> Path:
        """The folder of the model before any fine-tuning."""
        return self.root / "models" / "base"

    def base_of(self, fold: int | None) -> Path:
        """Return the folder of the model that a fold's trainings start from.

        It is `base` for all, but where messages make the model: then for the first fold alone.
        """
        own = self.base / f"{FOLD}{fold}"
        return own if own.is_dir() else self.base

    @property
    def base_report(self) -> Path:
        """The folder of what was written down about the base model: provenance, tokens."""
        return self.root / "reports" / "base"

    @property
    def tokenization(self) -> Path:
        """How many tokens the base model's tokenizer makes of each class's texts."""
        return self.base_report / "tokens.json"

    def model(self, method: str) -> Path:
        """Return the folder of one method's trained models, or of the fitted `TFIDF`."""
        return self.root / "models" / method

    def trained(self, method: str, seed: int) -> Path:
        """Return the folder of what one method's fine-tuning with one seed changed."""
        return self.model(method) / seed_folder(seed)

    def adapter(self, method: str) -> Path:
        """Return the folder of an imported method's adapter."""
        return self.root / "inputs" / "adapters" / method

    def checkpoints(self, stage: str = "") -> Path:
        """Return the folder of a stage's trainings, begun and finished; without a name, of all.

        It is no output of a stage: DVC would delete it before the stage runs.
        """
        return self.root / ".checkpoints" / stage

    def writer(self, stage: str) -> Path:
        """Return the file that the process which runs a stage holds locked."""
        return self.checkpoints() / f"{stage}.lock"

    def metrics(self, name: str) -> Path:
        """Return a metrics file: of a method, split, baseline, comparison, or summary for DVC."""
        return self.root / "metrics" / f"{name}.json"

    def cost(self, method: str) -> Path:
        """Return the metrics file of one method's time and memory."""
        return self.root / "metrics" / f"{method}_cost.json"

    def tuning(self, method: str = "") -> Path:
        """Return the folder of how one method was tuned; without a name, that of all."""
        return self.root / "reports" / "tuning" / method

    def choice(self, method: str) -> Path:
        """Return the values that one method's search has come to."""
        return self.tuning(method) / "choice.json"

    def training(self, method: str = "") -> Path:
        """Return the folder of how one method's training went; without a name, that of all."""
        return self.root / "reports" / "training" / method

    def history(self, method: str) -> Path:
        """Return the CSV of one method's losses and accuracies by step."""
        return self.training(method) / "history.csv"

    def cost_copy(self, method: str) -> Path:
        """Return the cost file with versions and machine, in a folder that `compare` depends on."""
        return self.training(method) / "cost.json"

    @property
    def out_of_sample(self) -> Path:
        """What models that have not seen them make of the messages of the training split."""
        return self.evaluated(TFIDF) / "out_of_sample.safetensors"

    def evaluated(self, name: str = "") -> Path:
        """Return the folder of what a method or baseline answers; without a name, that of all."""
        return self.root / "reports" / "evaluation" / name

    def evaluation(self, method: str) -> Path:
        """Return the full evaluation of one method: its metrics and calibration."""
        return self.evaluated(method) / "evaluation.json"

    def predictions(self, name: str, seed: int | None = None) -> Path:
        """Return the CSV of test predictions of a method's seed, or of `untuned` or `tfidf`."""
        suffix = "" if seed is None else f"-{seed}"
        return self.evaluated(name) / f"predictions{suffix}.csv"

    def decision(self, name: str, seed: int | None = None) -> Path:
        """Return how probabilities become answers: of a method's seed, or of `tfidf`."""
        suffix = "" if seed is None else f"-{seed}"
        return self.evaluated(name) / f"decision{suffix}.json"

    @property
    def comparison(self) -> Path:
        """The folder of the report."""
        return self.root / "reports" / "comparison"

    def report(self, suffix: str) -> Path:
        """Return the comparison report as `md` or `html`."""
        return self.comparison / f"comparison.{suffix}"

    @property
    def curves(self) -> Path:
        """The CSV of all methods' histories in one table, for `dvc plots`."""
        return self.comparison / "curves.csv"

    @property
    def answers(self) -> Path:
        """The CSV of every method's answers to the test messages, for `dvc plots`."""
        return self.comparison / "test_answers.csv"

    @property
    def plots(self) -> Path:
        """The folder of the report's figures."""
        return self.comparison / "plots"

    def output_folders(self, stage: str, method: str = "") -> list[Path]:
        """Return the folders that a stage writes to.

        Args:
            stage: A stage of dvc.yaml.
            method: The method, for `tune`, `finetune` and `evaluate`.

        Checked by tests/faults/test_disk.py against dvc.yaml.
        """
        folders = {
            "download": [self.raw],
            "split": [self.splits, self.root / "metrics"],
            "base_model": [self.base, self.tokens("train").parent, self.base_report],
            "baseline": [
                *(self.evaluated("untuned"), self.evaluated(TFIDF)),
                *(self.model(TFIDF), self.root / "metrics"),
            ],
            "tune": [self.tuning(method)],
            "finetune": [self.model(method), self.training(method), self.root / "metrics"],
            "evaluate": [self.evaluated(method), self.root / "metrics"],
            "compare": [self.comparison, self.root / "metrics"],
        }
        return folders[stage]


def require(path: Path, stage: str) -> Path:
    """Return `path` if it exists.

    Args:
        path: A file or folder that an earlier stage writes.
        stage: The DVC stage that writes it, for the message.

    Raises:
        MissingArtifactError: It is not there; the message names the stage to run.
    """
    if not path.exists():
        raise MissingArtifactError(
            f"{path.name} is missing.",
            where=str(path),
            expected=f"the output of the stage {stage}",
            next=f"dvc repro {stage}",
        )
    return path
