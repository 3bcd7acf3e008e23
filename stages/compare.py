"""Compare every method with every other and write the verdict and the report."""

from lora_compare.cli.stage import stage
from lora_compare.params import Params
from lora_compare.project.paths import Paths
from lora_compare.project.progress import Progress


@stage("compare")
def main(paths: Paths, params: Params, progress: Progress) -> None:
    """Read what the methods did, test every pair, write the comparison and its report."""
    from lora_compare.comparison.evidence import foreign_files, remove_leftovers
    from lora_compare.comparison.sentences import headline
    from lora_compare.report.page import write_comparison

    for path in remove_leftovers(paths, params):
        progress.say(f"removed {path.relative_to(paths.root)}: no method of params.yaml")
    for path in foreign_files(paths, params):
        place = path.relative_to(paths.root)
        progress.say(f"warning: {place} is of no stage, and no colleague has it: move it away")
    # The command `lora-compare report` does the same: it must write the same bytes.
    comparison = write_comparison(paths, params, progress)
    progress.say(headline(comparison))


if __name__ == "__main__":
    main()
