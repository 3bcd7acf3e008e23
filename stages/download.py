"""Fetch the labelled text, check every row, and write it in the canonical format."""

from lora_compare.cli.stage import stage
from lora_compare.params import Params, require_fit, require_kind, require_prior
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress


@stage("download")
def main(paths: Paths, params: Params, progress: Progress) -> None:
    """Write data/raw: the messages, and where they came from with checksums."""
    from lora_compare.data.classes import likely_cause, show_counts
    from lora_compare.data.places import require_watched
    from lora_compare.data.sources import load_corpus
    from lora_compare.project.checksums import seal
    from lora_compare.project.corpus import are_several, class_order, write_messages
    from lora_compare.project.files import sha256, write_json
    from lora_compare.project.lineage import Pipeline

    require_watched(params.data, paths)
    with progress.work("fetch and parse"):
        # Where something else has changed, such as a file in inputs/, what an address has given
        # stays; where nothing has, this run was asked for: dvc repro --force download.
        anew = Pipeline(paths, params).is_current("download", without_files=True)
        messages, provenance = load_corpus(params.data, paths, progress, anew)
        # An adapter's rank may have no room in the head of so few classes.
        require_fit(params, len(provenance["classes"]))
        require_kind(params, are_several(messages["label"]))
        require_prior(params, class_order(provenance["classes"]))
        write_messages(paths.messages, messages)
    write_json(paths.provenance, provenance | {"messages_sha256": sha256(paths.messages)})
    seal(paths.raw)
    counts = show_counts(provenance["classes"])
    progress.say(f"{provenance['rows']:,} messages from {provenance['source']}: {counts}")
    if cause := likely_cause(provenance["classes"]):
        progress.say(f"warning: {cause}")


if __name__ == "__main__":
    main()
