"""Which layers of a network an adapter's settings mean, by PEFT's rules, and whether it fits."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from lora_compare.errors import ParamsError
from lora_compare.params.methods import ALL_LINEAR, DEFAULT, FROM_WEIGHT, LoraParams, ending

Aliases = Callable[[str], Sequence[str]]
"""Returns the other names, also dotted paths, under which a module is known."""

Value = TypeVar("Value", int, float)

BLOCK = re.compile(r"(?:.*?\.)?[^.]+\.(\d+)\.")
"""Finds the index of the block in a path: `gpt.h.3.attn.q_proj` is in block 3."""


@dataclass(frozen=True)
class Layer:
    """A layer that can be adapted.

    Attributes:
        kind: What it is.
        sides: Lengths of its weight's two sides.
    """

    kind: Literal["linear", "embedding"]
    sides: tuple[int, int]


Modules = Mapping[str, Layer | None]
"""Every module of a network by its dotted path; None for one that cannot be adapted."""


@dataclass(frozen=True)
class Choice:
    """What an adapter's settings mean in a network.

    Attributes:
        adapted: Paths of the layers that get an adapter, in the network's order.
        ranks: Rank of each adapter, by path.
        alphas: Numerator of each adapter's scale, by path.
        saved: Paths of the modules that are trained in full, in the network's order.
        mistakes: Everything in which the settings do not fit; the rest is then of no use.
    """

    adapted: list[str]
    ranks: dict[str, int]
    alphas: dict[str, float]
    saved: list[str]
    mistakes: list[ParamsError]


def choose_layers(modules: Modules, settings: LoraParams, aliases: Aliases) -> Choice:
    """Return the layers that `settings` adapts, and every mistake in them at once.

    A name or pattern that matches nothing, a block that does not exist, and a rank that has no
    room in its layer are mistakes.

    Args:
        modules: The network.
        settings: Which layers, and their ranks.
        aliases: Other names of a module.
    """
    names = _Names(modules, aliases)
    layers = [path for path, layer in modules.items() if layer is not None]
    saved = names.matching("modules_to_save", settings.modules_to_save, list(modules))
    # Among all layers: leaving out what is saved in full is said twice, but no mistake.
    excluded = set(names.matching("exclude_modules", settings.exclude_modules, layers))
    inside_saved = tuple(f"{path}." for path in saved)
    free = [p for p in layers if not f"{p}.".startswith(inside_saved) and p not in excluded]
    chosen = names.matching("target_modules", settings.target_modules, free)
    chosen = names.in_blocks(chosen, settings.layers_to_transform)
    if not chosen and not names.mistakes:
        names.mistakes.append(
            ParamsError("There is no layer to adapt.", where="lora.target_modules")
        )
    ranks, alphas = dict.fromkeys(chosen, settings.r), dict.fromkeys(chosen, settings.lora_alpha)
    if chosen:
        own = names.patterned("rank_pattern", settings.rank_pattern, chosen)
        ranks |= own
        alphas |= names.patterned("alpha_pattern", settings.alpha_pattern, chosen)
        names.mistakes += _start_mistakes(modules, ranks, own, settings)
    return Choice(chosen, ranks, alphas, saved, names.mistakes)


@dataclass
class _Names:
    """The modules by path, and how settings name them; mistakes are collected on the way."""

    modules: Modules
    aliases: Aliases
    mistakes: list[ParamsError] = field(default_factory=list)

    def matching(self, key: str, wanted: str | Sequence[str] | None, among: list[str]) -> list[str]:
        """Return the paths that `wanted` means, in their order.

        Args:
            key: The setting's key.
            wanted: `all-linear`, a regular expression, a list of names, or nothing; `default`
                where the architecture has none.
            among: The paths to choose from.
        """
        if wanted is None:
            return []
        if wanted == ALL_LINEAR:
            return self._linear(among)
        if wanted == DEFAULT:
            self._refuse_default(key, among)
            return []
        tests = [_expression(wanted)] if isinstance(wanted, str) else [_name(w) for w in wanted]
        texts = [wanted] if isinstance(wanted, str) else list(wanted)
        found = [[p for p in among if any(map(test, self._known_as(p)))] for test in tests]
        missing = [text for text, paths in zip(texts, found, strict=True) if not paths]
        if missing:
            self._refuse(key, missing, among, is_pattern=isinstance(wanted, str))
        every = {path for paths in found for path in paths}
        return [path for path in among if path in every]

    def patterned(
        self, key: str, patterns: Mapping[str, Value], among: list[str]
    ) -> dict[str, Value]:
        """Return the value of the patterns that match each path, where one does.

        A pattern is a regular expression for the end of a path. Patterns that give a path
        different values are a mistake: PEFT takes the first, and an order of keys is nothing
        that DVC sees a change of.
        """
        values: dict[str, Value] = {}
        owners: dict[str, str] = {}
        missing = []
        for pattern, value in patterns.items():
            test = _expression(ending(pattern))
            found = [path for path in among if any(map(test, self._known_as(path)))]
            if not found:
                missing.append(pattern)
            for path in found:
                if values.setdefault(path, value) != value:
                    self._contradict(key, path, {owners[path]: values[path], pattern: value})
                    break
                owners.setdefault(path, pattern)
        if missing:
            self._refuse(key, missing, among, is_pattern=False)
        return values

    def _contradict(self, key: str, path: str, values: Mapping[str, float]) -> None:
        shown = " and ".join(f"{pattern}: {value}" for pattern, value in values.items())
        self.mistakes.append(
            ParamsError(
                f"Two patterns give {path} different values.",
                where=f"lora.{key}",
                expected="one pattern for a layer, or equal values: their order means nothing",
                actual=shown,
            )
        )

    def in_blocks(self, paths: list[str], blocks: int | list[int] | None) -> list[str]:
        """Return those of `paths` that lie in one of `blocks`; all of them for None."""
        if blocks is None or not paths:
            return paths
        found = {path: int(m.group(1)) for path in paths if (m := BLOCK.match(path))}
        wanted = [blocks] if isinstance(blocks, int) else blocks
        unknown = sorted(set(wanted) - set(found.values()))
        if unknown:
            self.mistakes.append(
                ParamsError(
                    "There are no such blocks with a targeted layer.",
                    where="lora.layers_to_transform",
                    expected=", ".join(map(str, sorted(set(found.values()))))
                    or "nothing: no blocks",
                    actual=", ".join(map(str, unknown)),
                )
            )
        return [path for path, index in found.items() if index in wanted]

    def _known_as(self, path: str) -> list[str]:
        return [path, *self.aliases(path)]

    def _linear(self, among: Iterable[str]) -> list[str]:
        return [path for path in among if _kind(self.modules[path]) == "linear"]

    def _refuse_default(self, key: str, among: list[str]) -> None:
        self.mistakes.append(
            ParamsError(
                "PEFT has no default for this architecture.",
                where=f"lora.{key}",
                expected=f"{ALL_LINEAR}, or some of {self._listed(self._linear(among))}",
                actual=DEFAULT,
            )
        )

    def _listed(self, among: Iterable[str]) -> str:
        """Return the last parts of all names, those of embeddings and of other modules apart."""
        by_kind: dict[str, set[str]] = {"linear": set(), "embedding": set(), "other": set()}
        for path in among:
            names = {name.split(".")[-1] for name in self._known_as(path)}
            kind = _kind(self.modules[path])
            # The index of a block is no name that anybody would look for.
            by_kind[kind] |= names if kind != "other" else {n for n in names if not n.isdigit()}
        titles = {"linear": "", "embedding": "embeddings: ", "other": "others: "}
        shown = [
            titles[kind] + ", ".join(sorted(names)) for kind, names in by_kind.items() if names
        ]
        return "; ".join(shown)

    def _refuse(self, key: str, missing: list[str], among: list[str], is_pattern: bool) -> None:
        expected = f"some of {self._listed(among)}"
        if is_pattern:
            example = next(iter(among), "")
            expected += (
                f"\n(a text is a regular expression for a whole path such as {example};\n"
                f"to give a name, write a list: [{missing[0]}])"
            )
        self.mistakes.append(
            ParamsError(
                f"No module is called {', '.join(missing)}.",
                where=f"lora.{key}",
                expected=expected,
                actual=", ".join(missing),
            )
        )


def _kind(layer: Layer | None) -> str:
    return "other" if layer is None else layer.kind


def _name(name: str) -> Callable[[str], bool]:
    return lambda path: path == name or path.endswith(f".{name}")


def _expression(pattern: str) -> Callable[[str], bool]:
    return lambda path: re.fullmatch(pattern, path) is not None


def _start_mistakes(
    modules: Modules, ranks: Mapping[str, int], own: Collection[str], settings: LoraParams
) -> list[ParamsError]:
    """Return a mistake for each way in which adapters cannot start in their layers.

    Args:
        modules: The network.
        ranks: Rank of each adapter, by path.
        own: Paths of those that have it from rank_pattern.
        settings: The adapter.
    """
    start = settings.init_lora_weights
    layers = {path: layer for path in ranks if (layer := modules[path]) is not None}
    embeddings = [path for path, layer in layers.items() if layer.kind == "embedding"]
    mistakes = []
    # The head of a two-class model has a side of 2. A rank above it is wasteful but harmless
    # there, and the published parameter counts include it; a rank above both sides is not LoRA.
    limit, because = max, ""
    if start in FROM_WEIGHT:
        limit, because = min, f" for init_lora_weights: {start}"
        if embeddings:
            mistakes.append(
                ParamsError(
                    f"The embedding {embeddings[0]} cannot start from its weight.",
                    where="lora.init_lora_weights",
                    expected="true or gaussian where embeddings are adapted",
                    actual=str(start),
                )
            )
    room = {path: limit(layer.sides) for path, layer in layers.items()}
    for key, is_own in (("lora.r", False), ("lora.rank_pattern", True)):
        tight = [p for p in ranks if (p in own) == is_own and ranks[p] > room[p]]
        if tight:
            path = min(tight, key=room.__getitem__)
            mistakes.append(_no_room(key, path, ranks[path], f"{room[path]}{because}"))
    return mistakes


def _no_room(key: str, path: str, r: int, room: str) -> ParamsError:
    return ParamsError(
        f"The rank is larger than the layer {path}.",
        where=key,
        expected=f"at most {room}",
        actual=str(r),
        next="lower lora.r, give the layer its own in lora.rank_pattern,\n"
        "or leave it out with lora.exclude_modules",
    )
