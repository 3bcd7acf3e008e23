"""The sections of params.yaml on the labelled text: where it is, and how it is split."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from lora_compare.errors import without_credentials
from lora_compare.params.sections import Fraction, Positive, Section, Seed, Sha256

Name = Annotated[str, Field(min_length=1)]
Times = Annotated[float, Field(ge=1, allow_inf_nan=False)]

ROUNDING = 0.001
"""How far shares may be from 1 together: three times 0.333 are a third each."""

DEALING_COLUMNS = ("split_column", "group_column", "time_column")
"""Columns of `data` that say how messages are dealt to the splits."""

PARTS = ("train", "validation", "test")
"""What a message can be for; a file each may be given."""

OF_SEVERAL_LABELS: dict[str, tuple[tuple[Any, ...], str]] = {
    "data.prior": ((None,), "labels exclude no other, so that no share weighs a message"),
    "split.mode": (("stratified",), "the book's split is by one class"),
    "split.folds": ((1,), "folds deal messages by one class"),
    "split.balance": (("none",), "what is cut of one label is cut of others"),
    "classifier.positive": ((None,), "every label has its own precision and recall"),
    "classifier.threshold": (("argmax",), "every label has its own, chosen on validation"),
    "evaluation.temperature": ((False,), "it is of a softmax over classes"),
    "comparison.costs": ((None,), "a mistake is not of one class for another"),
    "training.class_weights": (("none",), "a message has no one class to weigh it by"),
    "comparison.metric": (
        ("accuracy", "jaccard", "micro_f1", "macro_f1"),
        "the others are of one class a message",
    ),
}
"""Settings that messages with several labels restrict: what they may be, and why."""


class DataParams(Section):
    """Where the labelled text comes from, and what it says of itself."""

    source: Name | dict[str, str]
    """`bundled`, `uci`, or a path or URL of a .tsv, .csv, .jsonl or .parquet, or of one in a .zip
    or .gz. `{train: FILE, validation: FILE, test: FILE}` gives the splits; without a validation
    file `split.validation` is taken from train."""

    text_column: Name
    """Column of the text; a .tsv without a header has `label` and `text`."""

    label_column: Name
    """Column of the class; of the labels, where a message may have several or none: a list in
    .jsonl and .parquet."""

    labels_separator: Name | None = None
    """What stands between a message's labels in the label's column, such as `;`: then it may have
    several, or none (an empty cell). null: what stands there is one class, or a list."""

    split_column: Name | None = None
    """Column that gives each message's split: `train`, `validation` or `test`. Nothing is moved
    between them; where none is `validation`, `split.validation` is taken from train. null: there is
    none."""

    group_column: Name | None = None
    """Column of what keeps messages together, such as a customer, a thread or an author: no group
    is in two splits, and the verdict counts each as one. An empty cell is a group of its own. null:
    there is none."""

    time_column: Name | None = None
    """Column of dates (ISO 8601, or seconds or milliseconds since 1970): the newest messages are
    test, those before them validation; no date is in two splits. What a group has in an earlier
    split than its newest message is left out. null: dates play no part."""

    sha256: Sha256 | None = None
    """Expected SHA-256 of the source file, 64 hex digits; null accepts any and records it."""

    prior: dict[str, Positive] | None = None
    """Share of each class where the classifier is to work, above 0, 1 together: the logits are
    moved from the shares of the training split to it (Saerens et al. 2002), and messages are
    weighted to it; the splits stay as they are. null: neither; each message counts alike."""

    @property
    def carried(self) -> dict[str, str]:
        """The columns beside text and label that are read, by what they say: group, time, split."""
        named = {"group": self.group_column, "time": self.time_column, "split": self.split_column}
        return {key: column for key, column in named.items() if column is not None}

    @property
    def files(self) -> dict[str, "DataParams"]:
        """The same settings for each source alone, by its split; one source has the name ''."""
        if isinstance(self.source, str):
            return {"": self}
        given = {part: self.source[part] for part in PARTS if part in self.source}
        return {part: self.model_copy(update={"source": file}) for part, file in given.items()}

    @property
    def address(self) -> str:
        """The source, where it is one; of several that of train, which gives them their name."""
        return self.source if isinstance(self.source, str) else self.source["train"]

    @property
    def described(self) -> str:
        """The source as a text to show, its splits named where they are given as files."""
        files = self.files.items()
        named = (f"{part}: {one.address}".removeprefix(": ") for part, one in files)
        return without_credentials(", ".join(named))

    @field_validator("source", mode="before")
    @classmethod
    def _name_files_of_splits(cls, source: Any) -> Any:
        if isinstance(source, dict):
            _require_files(source)
        elif not isinstance(source, str):
            raise ValueError("should be a text, or {train: FILE, test: FILE} with files of splits")
        elif not source:
            raise ValueError("should name a source")
        return source

    @field_validator("sha256")
    @classmethod
    def _pin_one_file(cls, sha256: str | None, info: ValidationInfo) -> str | None:
        if sha256 is not None and isinstance(info.data.get("source"), dict):
            raise ValueError("pins one file, and data.source names several; leave it out")
        return sha256

    @field_validator("prior")
    @classmethod
    def _share_out_the_whole(cls, prior: dict[str, float] | None) -> dict[str, float] | None:
        if prior is not None and abs((total := sum(prior.values())) - 1) > ROUNDING:
            raise ValueError(f"the shares of the classes should sum to 1, and sum to {total:g}")
        return prior


def misfits_of_several(value: Callable[[str], Any]) -> Iterator[str]:
    """Yield the settings that do not go with messages of several labels, each with its reason.

    Args:
        value: Returns what stands under a dotted key; None where nothing does.
    """
    for key, (allowed, reason) in OF_SEVERAL_LABELS.items():
        found = value(key)
        if found is not None and found not in allowed:
            words = {None: "null", False: "false"}
            named = " or ".join(words.get(one, str(one)) for one in allowed)
            yield f"{key}: {named} where a message may have several labels, since {reason}"


def _require_files(source: Mapping[Any, Any]) -> None:
    """Refuse a mapping that does not name a file of its own for train and for test."""
    if unknown := [str(key) for key in source if key not in PARTS]:
        raise ValueError(f"has files of {', '.join(PARTS)}, and not of {', '.join(unknown)}")
    if missing := [part for part in ("train", "test") if part not in source]:
        raise ValueError(f"needs a file of {' and of '.join(missing)}, too")
    for part, file in source.items():
        if not isinstance(file, str) or not file:
            raise ValueError(f"{part} should name a file")
    files = list(source.values())
    if twice := [file for file in files if files.count(file) > 1]:
        raise ValueError(f"names {twice[0]} twice; no message is in two splits")


class SplitParams(Section):
    """How messages become train, validation and test."""

    mode: Literal["stratified", "appendix_e"] = "stratified"
    """`appendix_e` is the split of the book's notebook, row for row. `stratified` deals classes in
    proportion, but for what `data.split_column`, `data.time_column` or files of splits say."""

    deduplicate: Literal["exact", "none"]
    """`exact` drops repeated messages before splitting (of dated ones the newest stays; given
    splits lose them in train, then in validation, never in test), `none` keeps them."""

    twins: Literal["together", "apart"] = "apart"
    """`together` deals groups of near-duplicates whole, so that no test message has a twin in train
    or validation; `apart` deals message by message. Of given splits, only a validation split that
    is taken from train is dealt at all."""

    balance: Literal["train", "cap", "undersample", "none"]
    """`train` cuts every class of the training split to the smallest and leaves validation and test
    the data's proportions, `cap` cuts it to `cap` times the smallest, `undersample` cuts all three
    splits to their smallest class, `none` cuts nothing."""

    cap: Annotated[Times | None, Field(validate_default=True)] = None
    """With `balance: cap`, how many times the smallest class of train another may have: 1 or more;
    null with every other."""

    folds: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of test splits: 1 to 100, but not 2. Several are for few messages: every message is
    tested once, by a model of the other folds. Each fold has a train and a validation of its own,
    and one of `training.seeds`, of which there are as many."""

    train: Fraction | None = None
    """Fraction of the messages for the training split, before `balance` cuts it: above 0, below 1;
    null where the splits are given, and with `folds`, where it is what validation and test leave.
    Of `undersample` it is one of what is left."""

    validation: Fraction | None = None
    """Fraction of the messages to choose by: above 0, below 1. The test split gets the rest, at
    least 0.001. Where the splits are given, without a validation: the fraction of the training
    messages; null where one is."""

    seed: Seed
    """Seed of every random choice of the split: 0 to 4294967295."""

    @property
    def fold_numbers(self) -> tuple[int | None, ...]:
        """The folds from 1 on; None alone where there are none."""
        return tuple(range(1, self.folds + 1)) if self.folds > 1 else (None,)

    @field_validator("folds")
    @classmethod
    def _be_enough(cls, folds: int) -> int:
        if folds == 2:
            raise ValueError("should be 3 or more: what two trainings differ by tells too little")
        return folds

    @field_validator("deduplicate", "twins", "balance")
    @classmethod
    def _follow_the_book(cls, value: str, info: ValidationInfo) -> str:
        book = {"deduplicate": "none", "twins": "apart", "balance": "undersample"}
        needed = book[info.field_name or ""]
        if info.data.get("mode") == "appendix_e" and value != needed:
            raise ValueError(f"mode appendix_e needs {info.field_name}: {needed}")
        return value

    @field_validator("cap")
    @classmethod
    def _belong_to_its_balance(cls, cap: float | None, info: ValidationInfo) -> float | None:
        balance = info.data.get("balance")
        if balance == "cap" and cap is None:
            raise ValueError("should be a number with balance: cap, such as 3")
        if balance not in ("cap", None) and cap is not None:
            raise ValueError(f"should be left out, since balance is {balance}")
        return cap

    @field_validator("validation")
    @classmethod
    def _leave_room_for_test(cls, validation: float | None, info: ValidationInfo) -> float | None:
        if (info.data.get("train") or 0.0) + (validation or 0.0) > 0.999:
            raise ValueError("train + validation must leave room for a test split (at most 0.999)")
        return validation


def contradictions(data: Mapping[Any, Any], split: Mapping[Any, Any]) -> Iterator[str]:
    """Yield what of the sections `data` and `split`, as YAML has them, says two things of one."""
    files = data["source"] if isinstance(data.get("source"), dict) else {}
    columns = [f"data.{name}" for name in DEALING_COLUMNS if data.get(name) is not None]
    given = "data.source" if files else "data.split_column" * ("data.split_column" in columns)
    folds = n_folds(split)
    if split.get("mode") == "appendix_e" and (files or columns or folds > 1):
        named = ["files of splits in data.source"] * bool(files) + columns
        named += ["split.folds"] * (folds > 1)
        shown = ", ".join(named)
        yield f"split.mode: appendix_e is a split of its own, which has no use for {shown}"
    elif given:
        yield from _of_given(given, columns, files, split)
    else:
        needed = ("train", "validation")[folds > 1 :]
        yield from (f"split.{key}: missing" for key in needed if split.get(key) is None)
    if folds > 1:
        yield from _of_folds(folds, [given, *columns], split)


def n_folds(split: Mapping[Any, Any]) -> int:
    """Return the folds that the section `split`, as YAML has it, asks for."""
    folds = split.get("folds")
    return folds if isinstance(folds, int) else 1


def _of_folds(folds: int, dealing: list[str], split: Mapping[Any, Any]) -> Iterator[str]:
    """Yield what leaves no message to be tested once; `dealing` are settings that deal messages."""
    for key in dict.fromkeys(key for key in dealing if key not in ("", "data.group_column")):
        yield f"split.folds: {key} says which messages are test, so that folds deal none"
    if split.get("balance") == "undersample":
        yield "split.balance: undersample cuts test too, and folds test every message; take train"
    train, validation = split.get("train"), split.get("validation")
    if isinstance(train, float) and isinstance(validation, float):
        rest = 1 - 1 / folds - validation
        if abs(train - rest) > ROUNDING:
            yield f"split.train: {folds} folds and validation leave {rest:.4g}; set it to null"


def _of_given(
    given: str, columns: list[str], files: Mapping[Any, Any], split: Mapping[Any, Any]
) -> Iterator[str]:
    """Yield what is set, and has nothing to say where `given` names the setting with the splits."""
    if files and "data.split_column" in columns:
        yield "data.split_column: data.source has a file for each split; leave one of both out"
    if "data.time_column" in columns:
        yield f"data.time_column: {given} gives the splits, so that dates deal none; leave it out"
    if split.get("train") is not None:
        yield f"split.train: {given} gives the training split; leave it out"
    if "validation" in files and split.get("validation") is not None:
        yield "split.validation: data.source gives the validation split; leave it out"
    if files and "validation" not in files and split.get("validation") is None:
        yield "split.validation: missing; data.source has no validation, so name a share of train"
    if split.get("balance") == "undersample":
        yield f"split.balance: undersample cuts test too, and {given} gives it; take train or cap"
