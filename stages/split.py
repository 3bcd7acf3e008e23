"""Split the messages into train, validation, test and unused."""

from lora_compare.cli.running import power_of
from lora_compare.cli.stage import stage
from lora_compare.params import Params, require_kind
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress


@stage("split")
def main(paths: Paths, params: Params, progress: Progress) -> None:
    """Write data/splits and metrics/split.json."""
    from lora_compare.data.classes import (
        balanced_pool,
        count_available,
        describe_balance,
    )
    from lora_compare.data.splits import split
    from lora_compare.data.splits.coverage import describe_missing
    from lora_compare.data.splits.describing import describe_split
    from lora_compare.project.checksums import seal
    from lora_compare.project.corpus import are_several, read_messages, write_split
    from lora_compare.project.files import write_json

    with progress.work("split"):
        messages = read_messages(paths.messages)
        require_kind(params, are_several(messages["label"]))
        frames, metrics = split(messages, params.split)
        for name, frame in frames.items():
            write_split(paths.split(name), frame)
    write_json(paths.classes, list(metrics["classes"]))
    write_json(paths.metrics("split"), metrics)
    seal(paths.splits, beside=paths.metrics("split"))
    sizes = ", ".join(f"{part['n']:,} {name}" for name, part in metrics["splits"].items())
    twins = metrics["test_rows_with_twin_in_train"]
    progress.say(f"{sizes}; {metrics['duplicates_removed']:,} exact duplicates removed")
    progress.say(describe_split(metrics, params.split))
    counts = {name: part["classes"] for name, part in metrics["splits"].items()}
    pool = balanced_pool(counts, count_available(messages, params.split), params.split)
    if left_out := describe_balance(pool, params.split):
        progress.say(left_out)
    progress.say(
        f"test messages with a twin in train: {twins['exact']} word for word, "
        f"{twins['normalized']} but for digits and punctuation, {twins['near']} nearly"
    )
    if missing := describe_missing(metrics):
        progress.say(f"warning: {missing}")
    groups = metrics.get("groups", {}).get("test")
    progress.say(power_of(params, metrics["splits"]["test"]["n"], groups))
    if metrics["conflicting_texts"]:
        progress.say(f"texts that stand under two labels: {metrics['conflicting_texts']}")


if __name__ == "__main__":
    main()
