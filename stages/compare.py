"""Compare every method with every other and write the verdict and the report."""

from lora_compare.console import stage
from lora_compare.params import Params
from lora_compare.paths import Paths
from lora_compare.progress import Progress


@stage("compare")
def main(paths: Paths, params: Params, progress: Progress) -> None:
    """Read what the methods did, test every pair, write the comparison and its report."""
    from lora_compare.comparison import compare, headline
    from lora_compare.evidence import answers, curves, figures, load_evidence
    from lora_compare.files import write_csv, write_json
    from lora_compare.report import write_report
    from lora_compare.sums import seal
    from lora_compare.twins import near_duplicate_groups

    with progress.work("compare"):
        evidence = load_evidence(paths, params)
        groups = near_duplicate_groups(evidence.texts)
        comparison = compare(evidence, groups, params.split.seed)
        write_json(paths.metrics("comparison"), comparison)
        write_json(paths.metrics("summary"), figures(evidence))
        write_csv(paths.curves, curves(evidence))
        write_csv(paths.answers, answers(evidence))
    with progress.work("write the report"):
        write_report(paths, params, evidence, comparison)
    seal(paths.curves, paths.answers, *map(paths.report, ("md", "html")), paths.plots)
    progress.say(headline(comparison))


if __name__ == "__main__":
    main()
