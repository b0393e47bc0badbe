"""Where the modules of an adapter stand: their layers, told by the structure of all names together.

Names begin with whatever wraps the model: "0.auto_model.encoder.layer.7.attention.self.query" in a SentenceTransformer,
"model.language_model.layers.7.self_attn.q_proj" and "language_model.model.layers.7.self_attn.q_proj" for one tower of
text under two versions of transformers.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, takewhile

from deltaw.model.names import LAYER, projection_of

_LETTERS = ("q", "k", "v", "o")

# What torch.compile, FSDP, activation checkpointing and DDP add to names.
_ADDED = re.compile(r"^(?:module\.)+|(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_PEFT = "base_model.model."

# A number that may be a layer's where no list has a usual name: neither an expert's nor the last part of a name.
_NUMBER = re.compile(r"(?:^|(?<=\.))(?<!experts\.)(?<!expert\.)(?P<block>\d{1,9})(?=\.)")

# Lists that one network runs through in this order: a UNet, a DiT with blocks of two kinds.
_SEQUENCES = (
    ("down_blocks", "mid_block", "up_blocks"),
    ("input_blocks", "middle_block", "output_blocks"),
    ("transformer_blocks", "single_transformer_blocks"),
    ("double_blocks", "single_blocks"),
)
_ORDER = {name: order for names in _SEQUENCES for order, name in enumerate(names)}

# What a tower is for, by a part of its name; the last that fits holds, as in "video_llava.language_model".
_SENSES = re.compile(
    r"(?P<vision>visi|visual|image|img|video)|(?P<audio>audio|speech|sound)|(?P<text>text|language|llm)"
)


@dataclass(frozen=True)
class Place:
    """Where a module stands in a layer: `stack.block.name` is the module's name.

    Attributes:
        stack: the list that holds the layer, as "model.layers".
        block: the layer in there, as "3"; in a UNet with the lists inside, as "0.attentions.1.transformer_blocks.0".
        name: the module in the layer, as "self_attn.q_proj".
    """

    stack: str
    block: str
    name: str


@lru_cache(1024)
def _numbers(block: str) -> tuple[int, ...]:
    """The numbers of a block."""
    return tuple(int(part) for part in block.split(".") if part.isdecimal())


@lru_cache(1024)
def _order(stack: str) -> int:
    """A stack's number in a network that runs through several lists; 0 for any other."""
    return max(_ORDER.get(part, 0) for part in stack.split("."))


@lru_cache(1024)
def _tower(stack: str) -> str:
    """The network that a stack belongs to: the stack itself, unless a network runs through several."""
    parts = stack.split(".")
    first = next((n for n, part in enumerate(parts) if part in _ORDER), None)
    return stack if first is None else ".".join(parts[:first])


def unwrapped(module: str) -> str:
    """A module's name in the model that PEFT was given, without what compiling and sharding add to it."""
    return _ADDED.sub("", module.rpartition(_PEFT)[2])


def places(modules: Collection[str]) -> dict[str, Place]:
    """The place of every module that stands in a numbered layer.

    A list of layers has a usual name, as layers or blocks; or else its numbers vary, and beside lists with usual names
    it holds attention. A list around another one is a wrapper if its number does not vary. The number of an expert,
    and one that ends a name, is never a layer's.
    """
    found = _places(modules, _usual, always=True)
    others = _places([module for module in modules if module not in found], _NUMBER.finditer, always=not found)
    with_attention = {
        place.stack for module, place in others.items() if projection_of(module) in _LETTERS or "att" in place.name
    }
    return found | {module: place for module, place in others.items() if not found or place.stack in with_attention}


def _usual(module: str) -> Iterator[re.Match[str]]:
    """The numbered layers by usual names, without the "layer.0" of T5's "block.7.layer.0"."""
    end = 0
    for match in LAYER.finditer(module):
        if match["list"] != "layer" or match.start() != end + 1:
            yield match
        end = match.end()


def _places(
    modules: Collection[str], search: Callable[[str], Iterator[re.Match[str]]], always: bool
) -> dict[str, Place]:
    """The places by one way to search for layers; `always`: also where the number of no list varies."""
    candidates = {
        module: [(_list_of(match), match) for match in search(module) if match.end() < len(module)]
        for module in modules
    }
    blocks: defaultdict[str, set[str]] = defaultdict(set)  # by the list, with * for the numbers before it
    for name, match in chain(*candidates.values()):
        blocks[name].add(match["block"])
    varies = {name for name, numbers in blocks.items() if len(numbers) > 1}
    wrappers = set()  # lists around one that varies
    for matches in candidates.values():
        around = list(takewhile(lambda named: named[0] not in varies, matches))
        wrappers |= {name for name, _ in around if len(around) < len(matches)}
    found = {}
    for module, matches in candidates.items():
        inside = [(name, match) for name, match in matches if name not in wrappers]
        varying = [match for name, match in inside if name in varies]
        alone = sorted((match for _, match in inside), key=lambda match: match["block"] == "0")  # 0 tells least
        for match in (varying or alone * always)[:1]:
            stack = module[: match.start("block")].removesuffix(".")
            found[module] = Place(stack, match["block"], module[match.end() :].removeprefix("."))
    return found


def _list_of(match: re.Match[str]) -> str:
    return _starred(match.string[: match.start("block")])


@lru_cache(1024)
def _starred(path: str) -> str:
    return re.sub(r"(?<![^.])\d+(?=\.)", "*", path)


def layers_and_names(modules: Collection[str]) -> dict[str, tuple[int, str]]:
    """The layer, from 1, and the name of every module; both together tell any two modules apart.

    A network whose layers lie in lists of lists, or in several lists, has them numbered through. Each of several
    towers, as of text and of images, has layers of its own, and names with the tower in front. The name is q, k, v, o,
    or the last part of the module's name; where two modules of a tower share that, it is the path within the layer.
    Modules outside of layers are in layer 0.
    """
    found = places(modules)
    layers, towers = _layers(found), _tower_names({_tower(place.stack) for place in found.values()})
    tails = _tails([module for module in modules if module not in found])
    kinds = {
        module: (_tower(found[module].stack) if module in found else None, projection_of(module)) for module in modules
    }
    paths: defaultdict[tuple[str | None, str], set[str]] = defaultdict(set)
    for module, kind in kinds.items():
        paths[kind].add(found[module].name if module in found else module)
    named = {}
    for module, kind in kinds.items():
        own = kind[1] if len(paths[kind]) == 1 else found[module].name if module in found else tails[module]
        tower = towers[_tower(found[module].stack)] if module in found else ""
        named[module] = layers.get(module, 0), f"{tower}.{own}".removeprefix(".")
    counts = Counter(named.values())
    return {module: site if counts[site] == 1 else (site[0], module) for module, site in named.items()}


def _tails(names: Collection[str]) -> dict[str, str]:
    """The last parts of each name, as many as tell it from the others."""
    found: dict[str, str] = {}
    for length in range(1, 1 + max((name.count(".") + 1 for name in names), default=0)):
        tails = {name: ".".join(name.split(".")[-length:]) for name in names if name not in found}
        counts = Counter(tails.values())
        found |= {name: tail for name, tail in tails.items() if counts[tail] == 1}
    return found


def _layers(found: Mapping[str, Place]) -> dict[str, int]:
    """The layer of every module, from 1."""
    towers: defaultdict[str, list[Place]] = defaultdict(list)
    for place in found.values():
        towers[_tower(place.stack)].append(place)
    through = {tower: _numbered_through(inside) for tower, inside in towers.items()}
    return {
        module: through[_tower(place.stack)].get((place.stack, place.block), _numbers(place.block)[0] + 1)
        for module, place in found.items()
    }


def _numbered_through(inside: Collection[Place]) -> dict[tuple[str, str], int]:
    """Stack and block → layer, in the order of the network; empty where each block has its number.

    A block around others, as "0" around "0.blocks.0", stands in the first of them.
    """
    if len({place.stack for place in inside}) == 1 and all(len(_numbers(place.block)) == 1 for place in inside):
        return {}
    ordered = sorted(inside, key=lambda place: (_order(place.stack), place.stack, _numbers(place.block), place.block))
    blocks = list(dict.fromkeys((place.stack, place.block) for place in ordered))
    layers: dict[tuple[str, str], int] = {}
    layer = 1
    for n, (stack, block) in enumerate(blocks):
        layers[stack, block] = layer
        holds_next = n + 1 < len(blocks) and f"{'.'.join(blocks[n + 1])}.".startswith(f"{stack}.{block}.")
        layer += not holds_next
    return layers


def _tower_names(towers: Collection[str]) -> dict[str, str]:
    """A short name of each tower; "" for the only one, and for the only one that neither sees nor hears."""
    if len(towers) == 1:
        return dict.fromkeys(towers, "")
    parts_side_by_side = zip(*(tower.split(".") for tower in towers), strict=False)
    wrapper = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, parts_side_by_side))
    inner = {tower: tower.split(".")[wrapper:] for tower in towers}
    senses = {tower: sense(".".join(parts)) for tower, parts in inner.items()}
    silent = [set(parts) for tower, parts in inner.items() if not senses[tower]]
    common = set.intersection(*silent) if silent else set()
    names = {}
    for tower, parts in inner.items():
        if senses[tower]:
            own = [[part for part in parts if sense(part) == senses[tower]][-1]]
        else:
            own = [part for part in parts if part not in common] if len(silent) > 1 else []
        names[tower] = ".".join(own)
    counts, tails = Counter(names.values()), _tails(towers)
    return {tower: name if counts[name] == 1 else tails.get(tower, tower) for tower, name in names.items()}


@lru_cache(1024)
def sense(tower: str) -> str | None:
    """Whether a tower sees or hears: "vision", "audio" or None."""
    senses = [match.lastgroup for match in _SENSES.finditer(tower.lower())]
    return senses[-1] if senses and senses[-1] != "text" else None


def remarks_on_layers(layers: Mapping[str, int]) -> list[str]:
    """A sentence about towers that see or hear, and one about layers that are numbered through: module → layer."""
    found = places(layers)
    names = _tower_names({_tower(place.stack) for place in found.values()})
    sentences = []
    if len(names) > 1 and any(map(sense, names)):
        apart = ", ".join(f"{name} ({tower})" for tower, name in sorted(names.items()) if name)
        sentences.append(f"layers count from 1 in {apart} too: projections there have its name in front")
    for tower in sorted(names):
        inside = {module: place for module, place in found.items() if _tower(place.stack) == tower}
        if _numbered_through(inside.values()):
            ordered = sorted(inside.items(), key=lambda pair: len(pair[1].block))  # of "0" and "0.blocks.0", the latter
            blocks = {layers[module]: f"{place.stack}.{place.block}" for module, place in ordered}
            sentences.append(f"the layers are numbered through: {_ranges(blocks)}")
    return sentences


def _ranges(blocks: Mapping[int, str]) -> str:
    """Layers and their blocks, those of one list together."""
    lists: defaultdict[str, list[int]] = defaultdict(list)
    for layer, block in sorted(blocks.items()):
        lists[next((part for part in block.split(".") if part in _ORDER), block.partition(".")[0])].append(layer)
    return ", ".join(
        f"{layers[0]} is {blocks[layers[0]]}"
        if len(layers) == 1
        else f"{layers[0]} to {layers[-1]} are {blocks[layers[0]]} to {blocks[layers[-1]]}"
        for layers in lists.values()
    )
