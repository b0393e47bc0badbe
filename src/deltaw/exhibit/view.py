"""What the exhibits show of two adapters: one basis, some projections and some layers."""

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from omegaconf import DictConfig

from deltaw.analysis.pairs import AdapterPair
from deltaw.config.schema import names_in
from deltaw.errors import UserError
from deltaw.model.names import ALL_LINEAR, projection_of
from deltaw.run.adapter import Site


@dataclass(frozen=True)
class View:
    """What the exhibits show of two adapters.

    Attributes:
        subject: the two adapters.
        basis: the basis of every figure.
        projections: in the order of the panels. Every layer that is shown adapts all of them.
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
        return [sites[projection] for projection in self.projections]


def view_of(subject: AdapterPair, cfg: DictConfig) -> View:
    """The view that `basis`, `projections` and `layers` of a config ask for.

    Raises:
        UserError: the adapters do not adapt the projections, or no layer adapts all of them.
    """
    sites = subject.left.sites
    asked = list(cfg.layers) if cfg.layers else []
    projections, left_out = choose_projections(sites, names_in(cfg.projections))
    complete = complete_layers(sites, projections)
    return View(
        subject=subject,
        basis="A" if cfg.basis == "all" else cfg.basis,
        projections=projections,
        layers=choose_layers(complete, asked),
        middle=asked[0] if asked else complete[(len(complete) - 1) // 2],
        left_out=left_out,
    )


def choose_projections(sites: Collection[Site], asked: list[str]) -> tuple[list[str], list[str]]:
    """The projections to show, and a sentence for each that is left out.

    "all-linear" asks for the projections that most layers adapt together: q, k, v and o first, then the others.

    Raises:
        UserError: none of the projections is adapted.
    """
    adapted = list(dict.fromkeys(site.projection for site in sites))
    if ALL_LINEAR in asked:
        chosen = sorted(_most_frequent_set(sites), key=_attention_first)
        rest = sorted(set(adapted) - set(chosen))
        left_out = [f"projections: {rest} are left out, because not all compared layers adapt them"] if rest else []
    else:
        chosen = [projection for name in asked for projection in adapted if _means(name, projection)]
        missing = [name for name in asked if not any(_means(name, projection) for projection in adapted)]
        left_out = [f"projections: {name} is left out, because no layer adapts it" for name in missing]
    if not chosen:
        raise UserError(f"projections={asked}: the adapters have {sorted(adapted)}")
    return chosen, left_out


def complete_layers(sites: Collection[Site], projections: list[str]) -> list[int]:
    """The layers that adapt all of `projections`, in ascending order.

    Raises:
        UserError: there is no such layer.
    """
    complete = [layer for layer, adapted in _by_layer(sites).items() if adapted.issuperset(projections)]
    if not complete:
        raise UserError(f"no layer has all of the projections {projections}: choose fewer")
    return complete


def choose_layers(complete: list[int], asked: list[int]) -> list[int]:
    """The layers that were asked for, else the first layer and the layers nearest to ⅓, ⅔ and the whole of the depth.

    Depth is counted over `complete`, the layers that adapt all projections: 96 of them give 1, 32, 64 and 96.

    Raises:
        UserError: a layer that was asked for is not complete.
    """
    if missing := sorted(set(asked) - set(complete)):
        raise UserError(f"layers={asked}: all projections are adapted in the layers {complete}, not in {missing}")
    return asked or sorted({complete[max(round(len(complete) * third / 3), 1) - 1] for third in range(4)})


def _by_layer(sites: Collection[Site]) -> dict[int, set[str]]:
    """Layer → the projections that it adapts, in ascending order of layers."""
    by_layer: defaultdict[int, set[str]] = defaultdict(set)
    for site in sites:
        by_layer[site.layer].add(site.projection)
    return dict(sorted(by_layer.items()))


def _most_frequent_set(sites: Collection[Site]) -> frozenset[str]:
    """The set of projections that most layers adapt. Sites outside of any layer have layer 0 and do not count."""
    sets = Counter(frozenset(adapted) for layer, adapted in _by_layer(sites).items() if layer > 0)
    return max(sets, key=sets.__getitem__, default=frozenset())


def _means(name: str, projection: str) -> bool:
    """Whether a name asks for a projection: "q" also means a q with a path, as each stack of an encoder-decoder has."""
    return name in (projection, projection_of(projection))


def _attention_first(projection: str) -> tuple[bool, int, str]:
    """Sort key: q, k, v, o, then the others by name."""
    letter = projection_of(projection)
    return letter not in "qkvo", "qkvo".find(letter), projection
