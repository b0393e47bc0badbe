"""The frozen weight W of a site: found in the base's safetensors files, and read without the model."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deltaw.errors import UserError
from deltaw.model.fused import Fused
from deltaw.model.names import projection_of
from deltaw.run.same_modules import paired


@dataclass(frozen=True)
class Weight:
    """Where the frozen W of a site lies."""

    file: str  # absolute path
    tensor: str
    rows: tuple[tuple[int, int], ...]  # [start, stop) ranges of d_out: a fused tensor holds several W
    transposed: bool  # stored as (d_in, d_out), as transformers' Conv1D does

    @classmethod
    def from_json(cls, place: dict[str, Any]) -> "Weight":
        """The place as `run.json` tells it, where the rows are lists."""
        rows = tuple((first, end) for first, end in place["rows"])
        return cls(place["file"], place["tensor"], rows, place["transposed"])


def find_weight(
    folder: Path,
    module: str,
    shape: tuple[int, int],
    transposed: bool = False,
    split: Mapping[str, Fused] | None = None,
) -> Weight:
    """Search the headers of all safetensors files in `folder` for the weight of `module`.

    A file and the model in memory may differ in the first parts of a name, as in `model.layers.0.attn.q_proj` and
    `layers.0.attn.q_proj`, or `language_model.model.layers.0.attn.q_proj`. If no tensor has the same name, the only one
    whose name ends alike is taken, or else the only one that stands there under another wrapper.

    Args:
        folder: the folder of the base.
        module: the layer's name in the model.
        shape: (d_out, d_in) of the layer.
        transposed: whether the layer stores (d_in, d_out).
        split: by module, the layout of layers that the model splits into several and the base stores as one.

    Raises:
        UserError: no tensor fits, or several do, or the one that fits has another shape or is in 4 bits.
    """
    rows: tuple[tuple[int, int], ...] = ((0, shape[0]),)
    fused, _, part = module.rpartition(".")
    if layout := (split or {}).get(fused):
        rows = tuple((part_rows.start, part_rows.stop) for part_rows in layout.rows[projection_of(part)])
        module, shape, transposed = fused, (layout.d_out, shape[1]), layout.transposed
    shapes = _shapes(folder)
    exact = [place for place in shapes if place[1] == f"{module}.weight"]
    alike = exact or [place for place in shapes if _ends_alike(place[1], f"{module}.weight")]
    found = alike or _in_another_wrapper(shapes, module)
    if len(found) != 1:
        last = f"{module.rpartition('.')[2]}.weight"
        like = sorted({tensor for _, tensor in found or shapes if tensor.endswith(last)})
        raise UserError(
            f"{folder} has {len(found)} weights for {module}, among {like[:8]}: give the folder of the base as "
            "transformers saves it, with the adapted model alone"
        )
    ((file, tensor),) = found
    if (file, f"{tensor}.absmax") in shapes:
        raise UserError(
            f"{tensor} in {file} is in 4 bits, and W is read in full precision: give the base before quantisation"
        )
    stored, expected = shapes[file, tensor], shape[::-1] if transposed else shape
    if stored != expected:
        raise UserError(f"{tensor} in {file} is {stored}, and {module} is {expected}: give the base that was adapted")
    return Weight(str(file), tensor, rows, transposed)


def read_weight(weight: Weight) -> Float[Tensor, "d_out d_in"]:
    """W (d_out, d_in) in the dtype of the file; for a fused layer, the rows of the site alone.

    Raises:
        UserError: the file is gone, or no longer holds the tensor.
    """
    with _opened(Path(weight.file)) as file:
        stored = file.get_slice(weight.tensor)
        parts = [stored[:, first:end].T if weight.transposed else stored[first:end] for first, end in weight.rows]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _shapes(folder: Path) -> dict[tuple[Path, str], tuple[int, ...]]:
    """By file and name: the shape of every tensor in the safetensors files of `folder`."""
    shapes: dict[tuple[Path, str], tuple[int, ...]] = {}
    for path in sorted(folder.absolute().glob("*.safetensors")):
        with _opened(path) as file:
            shapes |= {(path, name): tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes


def _ends_alike(left: str, right: str) -> bool:
    """Whether one of two dotted names ends with the other."""
    return f".{left}".endswith(f".{right}") or f".{right}".endswith(f".{left}")


def _in_another_wrapper(places: Iterable[tuple[Path, str]], module: str) -> list[tuple[Path, str]]:
    """The tensors for the same module of a model that is wrapped in another way."""
    end = f".{module.rpartition('.')[2]}.weight"
    named = {tensor.removesuffix(".weight"): (file, tensor) for file, tensor in places if tensor.endswith(end)}
    return [named[name] for name in paired([module], named)]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        # The file is opened first, because safe_open calls one missing that may not be read.
        with path.open("rb"), safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise UserError(
            f"{path} is gone, and W of the base with it: give deltaw analyze base=, a folder that has it"
        ) from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} cannot be read ({error}): give deltaw analyze base=, a folder with the base") from None
