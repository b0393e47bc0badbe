"""The modules that two adapters of one base have in common, whatever wraps either of the two models."""

from collections import Counter
from collections.abc import Collection, Iterable

from deltaw.run.places import Place, places, sense

# Names that wrap any model, and say nothing about which one it is.
_NEUTRAL = frozenset(
    "model base_model language_model text_model auto_model pretrained_model inner_model transformer transformers "
    "backbone encoder decoder base net network module wrapped llm lm core trunk unet".split()
)


def paired(left: Collection[str], right: Collection[str]) -> dict[str, str]:
    """Modules of `right` → the same modules of `left`, whatever wraps either of the two models.

    Two stacks are the same if one name ends as the other, up to names that any wrapper has; a tower of images is never
    one of text, nor an encoder a decoder. Of several such stacks, the one that ends most alike is meant.
    """
    places_left, places_right = places(left), places(right)
    stacks = _pairs({place.stack for place in places_left.values()}, {place.stack for place in places_right.values()})
    by_place = {place: module for module, place in places_left.items()}
    inside = {
        module: by_place.get(Place(stacks[place.stack], place.block, place.name))
        for module, place in places_right.items()
        if place.stack in stacks
    }
    both_ways = [(one, other) for pair in stacks.items() for one, other in (pair, pair[::-1])]
    wrappers = [one.removesuffix(other) for one, other in both_ways if one.endswith(f".{other}")]
    exact = {module: module for module in set(left) & set(right) if module not in places_left}
    ours = _by_bare_name([module for module in left if module not in places_left | exact], wrappers)
    theirs = _by_bare_name([module for module in right if module not in places_right | exact], wrappers)
    outside = {module: ours.get(name) for name, module in theirs.items()} | exact
    return {module: other for module, other in (inside | outside).items() if other is not None}


def _by_bare_name(modules: Iterable[str], wrappers: Iterable[str]) -> dict[str, str]:
    """Modules outside of layers by their names without wrappers, where these are unique."""
    bare = {}
    for module in modules:
        wrapper = max((prefix for prefix in wrappers if module.startswith(prefix)), key=len, default="")
        parts = module.removeprefix(wrapper).split(".")
        while len(parts) > 1 and (parts[0] in _NEUTRAL or parts[0].isdecimal()):
            parts = parts[1:]
        bare[module] = ".".join(parts)
    counts = Counter(bare.values())
    return {name: module for module, name in bare.items() if counts[name] == 1}


def _pairs(left: Collection[str], right: Collection[str]) -> dict[str, str]:
    """Names of `right` → the names of `left` with which they end most alike, where that is mutual."""
    exact = {name: name for name in set(left) & set(right)}
    ours, theirs = [name for name in left if name not in exact], [name for name in right if name not in exact]
    best = {name: _most_alike(name, left) for name in theirs}
    back = {name: _most_alike(name, right) for name in ours}
    return exact | {name: other for name, other in best.items() if other is not None and back.get(other) == name}


def _most_alike(name: str, others: Iterable[str]) -> str | None:
    """The other name that may be the same one and is most alike; None if there is none, or several.

    Names that differ in names of wrappers alone are more alike than any that end in more common parts.
    """
    alike = [
        ((_own(name) == _own(other), _common_end(name, other)), other) for other in others if _may_be_one(name, other)
    ]
    most = max((likeness for likeness, _ in alike), default=(False, 0))
    found = [other for likeness, other in alike if likeness == most]
    return found[0] if most[1] and len(found) == 1 else None


def _own(name: str) -> list[str]:
    """The parts of a name that no wrapper has."""
    return [part for part in name.split(".") if part not in _NEUTRAL and not part.isdecimal()]


def _common_end(one: str, other: str) -> int:
    """How many parts at their ends two names have in common."""
    length = 0
    for a, b in zip(reversed(one.split(".")), reversed(other.split(".")), strict=False):
        if a != b:
            return length
        length += 1
    return length


def _may_be_one(one: str, other: str) -> bool:
    """Whether two names of stacks may mean one, each in its own wrapper."""
    if sense(one) != sense(other):
        return False
    sides = [name.split(".") for name in (one, other)]
    coders = [{word for part in side for word in ("encoder", "decoder") if word in part} for side in sides]
    if "encoder" in coders[0] | coders[1] and ("decoder" in coders[0]) != ("decoder" in coders[1]):
        return False
    numbers = [[part for part in side if part.isdecimal()] for side in sides]
    if all(numbers) and numbers[0] != numbers[1]:
        return False
    own = sorted(map(_own, (one, other)), key=len)
    return own[1][len(own[1]) - len(own[0]) :] == own[0]
