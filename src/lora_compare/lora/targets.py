"""Which modules an adapter is put on, by PEFT's rules."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from lora_compare.errors import ParamsError
from lora_compare.lora.layer import LoRALayer
from lora_compare.lora.start import FROM_WEIGHT
from lora_compare.params import LoraParams

Aliases = Callable[[str], Sequence[str]]
"""Returns the other names, also dotted paths, under which a module is known."""

Value = TypeVar("Value", int, float)

BLOCK = re.compile(r"(?:.*?\.)?[^.]+\.(\d+)\.")
"""Finds the index of the block in a path: `gpt.h.3.attn.q_proj` is in block 3."""


@dataclass(frozen=True)
class Target:
    """A layer to adapt.

    Attributes:
        path: Its dotted path.
        module: The Linear or Embedding layer itself.
        r: Rank of its adapter.
        lora_alpha: Numerator of its adapter's scale.
    """

    path: str
    module: nn.Module
    r: int
    lora_alpha: float


def adaptable(model: nn.Module) -> dict[str, nn.Module]:
    """Return the Linear and Embedding layers of `model` by path; adapted ones too, unwrapped."""
    found: dict[str, nn.Module] = {}
    inside: tuple[str, ...] = ()
    for path, module in model.named_modules():
        if path.startswith(inside) and inside:
            continue
        if isinstance(module, LoRALayer):
            inside = (*inside, f"{path}.")
            found[path] = module.base_layer
        elif path and isinstance(module, nn.Linear | nn.Embedding):
            found[path] = module
    return found


def find_targets(model: nn.Module, settings: LoraParams, aliases: Aliases) -> list[Target]:
    """Return the layers that `settings` adapts, in the model's order.

    Args:
        model: Any module.
        settings: Which layers, and their ranks.
        aliases: Other names of a module.

    Raises:
        ParamsError: A name or pattern matches nothing, a block does not exist, or a rank does
            not fit its layer.
    """
    names = Names(adaptable(model), aliases)
    saved = find_saved(model, settings, aliases)
    free = [p for p in names.modules if not any(p == s or p.startswith(f"{s}.") for s in saved)]
    # Among all layers: leaving out what is saved in full is said twice, but no mistake.
    every = list(names.modules)
    excluded = set(names.matching("lora.exclude_modules", settings.exclude_modules, every))
    free = [path for path in free if path not in excluded]
    chosen = names.matching("lora.target_modules", settings.target_modules, free)
    chosen = _in_blocks(chosen, settings.layers_to_transform)
    if not chosen:
        raise ParamsError("There is no layer to adapt.", where="lora.target_modules")
    ranks = names.patterned("lora.rank_pattern", settings.rank_pattern, chosen)
    alphas = names.patterned("lora.alpha_pattern", settings.alpha_pattern, chosen)
    targets = [
        Target(
            path,
            names.modules[path],
            ranks.get(path, settings.r),
            alphas.get(path, settings.lora_alpha),
        )
        for path in chosen
    ]
    for target in targets:
        _check_start(target, settings)
    return targets


def find_saved(model: nn.Module, settings: LoraParams, aliases: Aliases) -> list[str]:
    """Return the paths of the modules that are trained in full, in the model's order.

    Raises:
        ParamsError: A name matches no module.
    """
    modules = {p: m for p, m in model.named_modules() if p and ".adapters" not in f".{p}"}
    names = Names(modules, aliases)
    return names.matching("lora.modules_to_save", settings.modules_to_save, list(modules))


@dataclass(frozen=True)
class Names:
    """The modules by path, and how settings name them.

    Attributes:
        modules: Modules by dotted path.
        aliases: Other names of a module.
    """

    modules: Mapping[str, nn.Module]
    aliases: Aliases

    def matching(self, key: str, wanted: str | Sequence[str] | None, among: list[str]) -> list[str]:
        """Return the paths that `wanted` means, in their order.

        Args:
            key: The setting's key, for errors.
            wanted: `all-linear`, a regular expression, a list of names, or nothing.
            among: The paths to choose from.

        Raises:
            ParamsError: A name, or the expression, matches none of them.
        """
        if wanted is None:
            return []
        if wanted == "all-linear":
            return [path for path in among if isinstance(self.modules[path], nn.Linear)]
        tests = [_expression(wanted)] if isinstance(wanted, str) else [_name(w) for w in wanted]
        texts = [wanted] if isinstance(wanted, str) else list(wanted)
        found = [[p for p in among if any(map(test, self._known_as(p)))] for test in tests]
        missing = [text for text, paths in zip(texts, found, strict=True) if not paths]
        if missing:
            raise self._nothing(key, missing, among, is_pattern=isinstance(wanted, str))
        every = {path for paths in found for path in paths}
        return [path for path in among if path in every]

    def patterned(
        self, key: str, patterns: Mapping[str, Value], among: list[str]
    ) -> dict[str, Value]:
        """Return the value of the first pattern that matches each path, where one does.

        A pattern is a regular expression for the end of a path.

        Raises:
            ParamsError: A pattern matches none of the paths.
        """
        values: dict[str, Value] = {}
        for pattern, value in patterns.items():
            test = _ending(pattern)
            found = [path for path in among if any(map(test, self._known_as(path)))]
            if not found:
                raise self._nothing(key, [pattern], among, is_pattern=False)
            for path in found:
                values.setdefault(path, value)
        return values

    def _known_as(self, path: str) -> list[str]:
        return [path, *self.aliases(path)]

    def _nothing(
        self, key: str, missing: list[str], among: Iterable[str], is_pattern: bool
    ) -> ParamsError:
        every = {name.split(".")[-1] for path in among for name in self._known_as(path)}
        advice = "correct params.yaml"
        if is_pattern:
            example = next(iter(among), "")
            advice = (
                f"a text is a regular expression for a whole path such as {example};\n"
                f"to give a name, write a list: [{missing[0]}]"
            )
        return ParamsError(
            f"No module is called {', '.join(missing)}.",
            where=key,
            expected="some of " + ", ".join(sorted(every)),
            actual=", ".join(missing),
            next=advice,
        )


def _name(name: str) -> Callable[[str], bool]:
    return lambda path: path == name or path.endswith(f".{name}")


def _expression(pattern: str) -> Callable[[str], bool]:
    return lambda path: re.fullmatch(pattern, path) is not None


def _ending(pattern: str) -> Callable[[str], bool]:
    return _expression(rf"(.*\.)?({pattern})")


def _in_blocks(paths: list[str], blocks: int | list[int] | None) -> list[str]:
    """Return those of `paths` that lie in one of `blocks`; all of them for None."""
    if blocks is None:
        return paths
    found = {path: int(m.group(1)) for path in paths if (m := BLOCK.match(path))}
    wanted = [blocks] if isinstance(blocks, int) else blocks
    unknown = sorted(set(wanted) - set(found.values()))
    if unknown:
        raise ParamsError(
            "There are no such blocks with a targeted layer.",
            where="lora.layers_to_transform",
            expected=", ".join(map(str, sorted(set(found.values())))) or "nothing: no blocks",
            actual=", ".join(map(str, unknown)),
        )
    return [path for path, index in found.items() if index in wanted]


def _check_start(target: Target, settings: LoraParams) -> None:
    """Refuse a rank without room in the layer, and a start that the layer cannot have."""
    sides = _sides(target.module)
    from_weight = settings.init_lora_weights in FROM_WEIGHT
    if from_weight and isinstance(target.module, nn.Embedding):
        raise ParamsError(
            f"The embedding {target.path} cannot start from its weight.",
            where="lora.init_lora_weights",
            expected="true or gaussian where embeddings are adapted",
            actual=str(settings.init_lora_weights),
        )
    # The head of a two-class model has a side of 2. A rank above it is wasteful but harmless
    # there, and the published parameter counts include it; a rank above both sides is not LoRA.
    limit = min(sides) if from_weight else max(sides)
    if target.r > limit:
        because = f" for init_lora_weights: {settings.init_lora_weights}" if from_weight else ""
        raise ParamsError(
            f"The rank is larger than the layer {target.path}.",
            where="lora.r",
            expected=f"at most {limit}{because}",
            actual=str(target.r),
            next="lower lora.r, give the layer its own in lora.rank_pattern,\n"
            "or leave it out with lora.exclude_modules",
        )


def _sides(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, nn.Embedding):
        return module.num_embeddings, module.embedding_dim
    assert isinstance(module, nn.Linear)
    return module.in_features, module.out_features
