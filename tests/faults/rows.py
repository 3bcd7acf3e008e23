"""Every fault that the project is built against: what happens, and what a user then sees."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        fault: What goes wrong.
        outcome: What a user sees, and what is kept.
    """

    fault: str
    outcome: str


ROWS = {
    1: Row(
        "a training stage is killed (`kill -9`) at a random step",
        "run again, it goes on: weights, history, metrics and dvc.lock as of an undisturbed run",
    ),
    2: Row(
        "it is killed while a checkpoint is being written",
        "the checkpoint before is whole, used and named",
    ),
    3: Row(
        "`dvc repro` alone is killed, and its stage lives on",
        "the stage ends by itself; until then another run says which process still writes",
    ),
    4: Row(
        "SIGTERM or Ctrl-C",
        "a checkpoint is kept, the exit code is 143 or 130, and the way on is said",
    ),
    5: Row(
        "a download is cut off or stalls",
        "retried in bounded time; nothing incomplete is published",
    ),
    6: Row(
        "other bytes, or a web page with status 200",
        "address, expected and actual sha256 are named, the bytes removed, the mirror tried",
    ),
    7: Row(
        "the source is down: 429, 500, no answer, a redirect loop",
        "bounded retries, the mirror, then where to put the file by hand",
    ),
    8: Row(
        "the disk is full",
        "needed and free bytes; no partial output, the last checkpoint is whole",
    ),
    9: Row("a folder that cannot be written", "named before any training starts"),
    10: Row(
        "an output or an object in DVC's cache is corrupted",
        "the next stage refuses it and prints the command that repairs it",
    ),
    11: Row(
        "the tokenizer's or a checkpoint's cached file is overwritten",
        "noticed; fetched again, or what to do offline is said",
    ),
    12: Row("two `dvc repro` at once", "the second ends at once; no output is mixed"),
    13: Row(
        "the MLflow server is down, dies, is slow or answers 500",
        "training is the same to the byte and waits for nothing, the last stage 25 s at most; "
        "the next run or `lora-compare sync` completes it",
    ),
    14: Row("several stages meet a fresh MLflow store at once", "no crash, one experiment"),
    15: Row(
        "malformed rows: no tab, more tabs, an open quote, a bare CR, a BOM, NUL",
        "file and line of the first five and how many there are; no row is merged or dropped",
    ),
    16: Row("another encoding (cp1252, UTF-16)", "the byte's offset and what to do"),
    17: Row(
        "missing, unknown or differently written labels; empty text", "listed with their counts"
    ),
    18: Row("one class only, or one too small for every split", "refused, with counts"),
    19: Row(
        "`<|endoftext|>` in a message; a message of 100,000 characters",
        "encoded as text; cut, counted, in bounded time",
    ),
    20: Row(
        "one text under two labels; one message in train and test",
        "reported with counts; `split.deduplicate` removes them",
    ),
    21: Row(
        "the loss or a gradient is NaN or infinite",
        "stops with step, learning rate and batch; the last good checkpoint is kept",
    ),
    22: Row(
        "memory runs out, the host's or the device's", "one message with batch size and length"
    ),
    23: Row(
        "settings, data or torch change under a checkpoint",
        "the checkpoint is not used, and what differs is shown",
    ),
    24: Row(
        "a zip bomb, a path or link out of an archive; a pickle in place of safetensors",
        "refused before anything is written",
    ),
    25: Row(
        "a checkpoint with another shape or type, a missing or extra key, NaN, a web page inside",
        "the difference, key by key",
    ),
    26: Row(
        "mistakes in params.yaml",
        "all of them at once: key, value, what is allowed; no stage starts",
    ),
    27: Row(
        "locale, time zone, umask, blanks and other letters in the path, PYTHONHASHSEED, a home "
        "that cannot be written",
        "the same bytes",
    ),
    28: Row(
        "an adapter of another base model, or of another rank than it says", "refused, both named"
    ),
    29: Row(
        "the project is moved or copied",
        "MLflow's runs and models have their files in the new place, which is said once; the old "
        "place is not touched",
    ),
    32: Row(
        "the postman that shows runs in MLflow is killed, its project deleted, its store locked",
        "nothing is lost or there twice, no stage waits, no process is left 15 s later",
    ),
    33: Row(
        "one of several trainings fails or is killed",
        "the others end and are kept, it is named, and it alone goes on in the next run",
    ),
    35: Row(
        "a cluster's worker is killed, or has other versions; its scheduler is away or dies",
        "trained again elsewhere; refused by name; an error in seconds, checkpoints kept",
    ),
    36: Row(
        "a rank of a training that several processes share dies",
        "the others end within 30 seconds with its message; a checkpoint is kept",
    ),
    37: Row(
        "a model's folder is hostile or broken: code of its own, a pickle alone, links out of it, "
        "other shapes, NaN, another tokenizer, cut-off files",
        "refused with what is wrong and what to do, before it is loaded; nothing is executed",
    ),
    38: Row(
        "text without words, without spaces, of one sign; a class whose texts are all equal",
        "the pipeline ends with figures",
    ),
    39: Row(
        "a file under a wrong name, a header that is not one, another separator, stray cells",
        "known by its bytes; read with a warning, or refused with what to do",
    ),
    40: Row(
        "given splits, groups or dates that contradict themselves; a label that only test has",
        "refused by check as by the stage, with counts; a message in two splits leaves train",
    ),
}
