"""Make or fetch the model that every method starts from."""

from lora_compare.base import make_base, save_base, say_continuation
from lora_compare.console import stage
from lora_compare.corpus import read_split
from lora_compare.params import Params
from lora_compare.paths import Paths, require
from lora_compare.progress import Progress
from lora_compare.seeding import choose_device, make_deterministic


@stage("base_model")
def main(paths: Paths, params: Params, progress: Progress) -> None:
    """Write models/base from a checkpoint, or pre-train it on texts that no evaluation uses."""
    make_deterministic(params.model.seed, params.threads)
    device = choose_device(params.training.device)
    frames = [read_split(require(paths.split(name), "split")) for name in ("unused", "train")]
    texts = [text for frame in frames for text in frame["Text"]]
    base = save_base(make_base(params.model, texts, device, progress), paths.base)
    progress.say(f"{params.model.name}: {base.description['parameters']:,} parameters")
    say_continuation(base, progress)


if __name__ == "__main__":
    main()
