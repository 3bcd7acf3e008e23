"""Make or fetch the model that every method starts from, and store the splits as its tokens."""

from lora_compare.cli.stage import stage
from lora_compare.params import Params
from lora_compare.project.paths import SPLITS, Paths, require
from lora_compare.project.progress import Progress


@stage("base_model")
def main(paths: Paths, params: Params, progress: Progress) -> None:
    """Write models/base from a checkpoint, or pre-train it on texts that no evaluation uses."""
    from lora_compare.compute.device import choose_machine
    from lora_compare.compute.seeding import make_deterministic
    from lora_compare.models.base import make_base, save_base
    from lora_compare.models.tokens import measure_tokens, tokenize, write_examples
    from lora_compare.project.checksums import seal
    from lora_compare.project.corpus import are_several, read_classes, read_split
    from lora_compare.project.files import write_json
    from lora_compare.project.provenance import provenance

    make_deterministic(params.model.seed, params.threads)
    # Models are made in float32, whatever their width.
    machine = choose_machine(params.training, width=0)
    names = ("unused", *SPLITS)
    splits = {name: read_split(require(paths.split(name), "split")) for name in names}
    # Of what the model may learn from: it must not change with the test split.
    sources = {"split": [paths.split(name) for name in ("unused", "train")]}
    origin = provenance(paths, params, "base_model", sources, machine.describe())
    texts = [text for name in ("unused", "train") for text in splits[name]["Text"]]
    several = are_several(splits["train"]["Label"])
    with progress.work("make the base model"):
        made = make_base(params.model, texts, machine.device, progress, paths.root, several)
        base = save_base(made, paths.base)
    with progress.work("tokenize the splits"):
        parts = [tokenize(base.tokenizer, splits[name]) for name in SPLITS]
        for name, part in zip(SPLITS, parts, strict=True):
            write_examples(paths.tokens(name), part)
        texts = [splits[name]["Text"] for name in SPLITS]
        name, classes = params.model.name, read_classes(paths.classes)
        tokens = measure_tokens(name, base.tokenizer, parts, texts, classes)
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
