"""What the exhibits show of two adapters: one basis, some projections and some layers."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from omegaconf import DictConfig

from deltaw.analysis.pairs import AdapterPair
from deltaw.config.schema import names_in
from deltaw.errors import UserError
from deltaw.model.names import ALL_LINEAR, ends_in, is_fused, projection_of
from deltaw.run.adapter import Site

MOST_PROJECTIONS = 12  # that all-linear shows: each is a panel in every row of a figure


@dataclass(frozen=True)
class View:
    """What the exhibits show of two adapters.

    Attributes:
        subject: the two adapters.
        basis: the basis of every figure.
        projections: in the order of the panels. Some layers may adapt only some of them.
        layers: the layers of a figure with a row per layer, from top to bottom, counted from 1.
        middle: the layer of a figure with one layer.
        left_out: a sentence for each projection that was asked for and is not shown.
    """

    subject: AdapterPair
    basis: str
    projections: list[str]
    layers: list[int]
    middle: int
    left_out: list[str]

    @property
    def middle_sites(self) -> list[Site]:
        """The sites of the middle layer, in the order of the projections."""
        sites = {site.projection: site for site in self.subject.left.sites if site.layer == self.middle}
        return [sites[projection] for projection in self.projections if projection in sites]


def view_of(subject: AdapterPair, cfg: DictConfig) -> View:
    """The view that `basis`, `projections` and `layers` of a config ask for.

    Raises:
        UserError: the adapters do not adapt the projections, or a layer that was asked for adapts none of them.
    """
    sites = subject.left.sites
    projections, left_out = choose_projections(sites, names_in(cfg.projections))
    by_layer = projections_by_layer(sites, projections)
    layers = choose_layers(by_layer, list(cfg.layers) if cfg.layers else [])
    return View(
        subject=subject,
        basis="A" if cfg.basis == "all" else cfg.basis,
        projections=projections,
        layers=layers,
        middle=layers[0] if cfg.layers else middle_layer(by_layer, projections),
        left_out=left_out,
    )


def choose_projections(sites: Collection[Site], asked: list[str]) -> tuple[list[str], list[str]]:
    """The projections to show, and a sentence for each that is left out.

    A name asks for a projection, as "q"; for every projection of this letter, as the q of each stack of an
    encoder-decoder; or for a module, as "out_proj". "all-linear" asks for all projections: q, k, v and o first.

    Raises:
        UserError: none of the projections is adapted.
    """
    modules: dict[str, list[str]] = {}  # projection → its modules
    for site in sites:
        modules.setdefault(site.projection, []).append(site.module)
    if ALL_LINEAR in asked:
        chosen = sorted(modules, key=_attention_first)
        if rest := chosen[MOST_PROJECTIONS:]:
            some = ", ".join(rest[:3])
            return chosen[:MOST_PROJECTIONS], [
                f"projections: {len(rest)} more, as {some}, are in the tables alone: name those to show, at most "
                f"{MOST_PROJECTIONS} at once are readable"
            ]
        return chosen, []
    by_name = {name: [each for each in modules if _means(name, each, modules[each])] for name in asked}
    chosen = list(dict.fromkeys(projection for found in by_name.values() for projection in found))
    if not chosen:
        raise UserError(f"projections={asked}: the adapters have {sorted(modules)}{_how_to_part(modules)}")
    missing = [name for name, found in by_name.items() if not found]
    return chosen, [f"projections: {name} is left out, because no layer adapts it" for name in missing]


def _means(name: str, projection: str, modules: Collection[str]) -> bool:
    """Whether a name asks for a projection with these modules."""
    return name in (projection, projection_of(projection)) or any(ends_in(module, (name,)) for module in modules)


def _how_to_part(projections: Collection[str]) -> str:
    """What to give where a layer fuses q, k and v and nothing tells which of its rows are whose."""
    fused = ", ".join(filter(is_fused, projections))
    if not fused:
        return ""
    return (
        f", and nothing tells which rows of {fused} are q, k and v: give base=FOLDER with the base's config.json, or "
        f"compare it as one by projections=[{fused}]"
    )


def _attention_first(projection: str) -> tuple[bool, int, str]:
    """Sort key: q, k, v, o, then the others by name."""
    letter = projection_of(projection)
    return letter not in "qkvo", "qkvo".find(letter), projection


def projections_by_layer(sites: Collection[Site], projections: Collection[str]) -> dict[int, set[str]]:
    """Layer → those of `projections` that it adapts, in ascending order of layers."""
    by_layer: defaultdict[int, set[str]] = defaultdict(set)
    for site in sites:
        if site.projection in projections:
            by_layer[site.layer].add(site.projection)
    return dict(sorted(by_layer.items()))


def choose_layers(by_layer: Mapping[int, set[str]], asked: list[int]) -> list[int]:
    """The layers that were asked for; else the first layer, the layers nearest to ⅓, ⅔ and the whole of the depth, and
    for each projection that none of these adapts the middle one of its layers.

    Depth is counted over the layers that adapt a projection: 96 of them give 1, 32, 64 and 96.

    Args:
        by_layer: see `projections_by_layer`.
        asked: empty for the default.

    Raises:
        UserError: a layer that was asked for adapts none of the projections.
    """
    layers = [layer for layer in by_layer if layer] or list(by_layer)  # 0 stands for modules outside of layers
    if missing := sorted(set(asked) - set(by_layer)):
        raise UserError(f"layers={asked}: the projections are adapted in the layers {list(by_layer)}, not in {missing}")
    if asked:
        return asked
    chosen = {layers[max(round(len(layers) * third / 3), 1) - 1] for third in range(4)}
    for projection in dict.fromkeys(name for layer in layers for name in sorted(by_layer[layer])):
        having = [layer for layer in layers if projection in by_layer[layer]]
        if chosen.isdisjoint(having):
            chosen.add(_middle(having))
    return sorted(chosen)


def middle_layer(by_layer: Mapping[int, set[str]], projections: list[str]) -> int:
    """The middle one of the layers that adapt the first projection, and with it the most of the others."""
    having = [layer for layer in by_layer if projections[0] in by_layer[layer]]
    most = max(len(by_layer[layer]) for layer in having)
    return _middle([layer for layer in having if len(by_layer[layer]) == most])


def _middle(layers: list[int]) -> int:
    return layers[(len(layers) - 1) // 2]
