"""Make or fetch the model that every method starts from, and store the splits as its tokens."""

import shutil

from lora_compare.cli.stage import stage
from lora_compare.params import Params
from lora_compare.project.paths import FOLD, SPLITS, Paths, require
from lora_compare.project.progress import Progress


@stage("base_model")
def main(paths: Paths, params: Params, progress: Progress) -> None:
    """Write models/base from a checkpoint, or pre-train it on texts that no evaluation uses."""
    from lora_compare.compute.device import choose_machine
    from lora_compare.compute.seeding import make_deterministic
    from lora_compare.models.base import make_base, save_base
    from lora_compare.models.batches import Examples
    from lora_compare.models.tokens import measure_tokens, tokenize, write_examples
    from lora_compare.project.checksums import seal
    from lora_compare.project.corpus import are_several, read_classes, read_split
    from lora_compare.project.files import write_json
    from lora_compare.project.provenance import provenance

    make_deterministic(params.model.seed, params.threads)
    # Models are made in float32, whatever their width.
    machine = choose_machine(params.training, width=0)
    # Of what the model may learn from: it must not change with the test split.
    sources = {"split": [paths.split(name) for name in ("unused", "train")]}
    origin = provenance(paths, params, "base_model", sources, machine.describe())
    for path in paths.base.glob(f"{FOLD}*"):
        shutil.rmtree(path)
    folds = params.split.fold_numbers
    parts: dict[int | None, list[Examples]] = {}
    # The first fold comes last: its folder holds those of the others, and is sealed with them.
    for fold in reversed(folds):
        splits = {
            n: read_split(require(paths.split(n), "split"), fold) for n in ("unused", *SPLITS)
        }
        several = are_several(splits["train"]["Label"])
        if not parts or params.model.learns_from_messages:
            with progress.work("make the base model"):
                learnt = [*splits["unused"]["Text"], *splits["train"]["Text"]]
                where = machine.device, progress, paths.root
                made = make_base(params.model, learnt, *where, several)
                own = params.model.learns_from_messages and fold != folds[0]
                base = save_base(made, paths.base / f"{FOLD}{fold}" if own else paths.base)
        with progress.work("tokenize the splits"):
            parts[fold] = [tokenize(base.tokenizer, splits[name]) for name in SPLITS]
    with progress.work("tokenize the splits"):
        for place, name in enumerate(SPLITS):
            write_examples(paths.tokens(name), *(parts[fold][place] for fold in folds))
        texts = [splits[name]["Text"] for name in SPLITS]
        name, classes = params.model.name, read_classes(paths.classes)
        tokens = measure_tokens(name, base.tokenizer, parts[folds[0]], texts, classes)
    write_json(paths.tokenization, tokens)
    write_json(paths.base_report / "provenance.json", origin)
    seal(paths.tokens("train").parent, paths.base_report)
    progress.say(f"{params.model.name}: {base.description['parameters']:,} parameters")
    progress.say(f"{tokens['tokens_per_character']:.2f} tokens a character")
    if tokens["warning"]:
        progress.say(f"warning: {tokens['warning']}")
    for remark in base.remarks:
        progress.say(remark)


if __name__ == "__main__":
    main()
