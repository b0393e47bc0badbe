"""Pictures, drawn in processes beside this one. They alone load matplotlib, while this one loads PyTorch."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any

# Forked from a process that has loaded what they need, and that never had threads of its own.
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "deltaw.config.schema",
        "deltaw.exhibit.files",
        "deltaw.exhibit.fig6",
        "matplotlib.backends.backend_agg",
        "matplotlib.backends.backend_pdf",
    ]
)


@dataclass(frozen=True)
class Picture:
    """One exhibit, or the variant of a grid in times chance; `contents` is what the `draw` of its module takes."""

    exhibit: str
    contents: dict[str, Any]
    times_chance: bool = False

    @property
    def name(self) -> str:
        """Of its files, without a suffix."""
        return f"{self.exhibit}-times-chance" if self.times_chance else self.exhibit


def prepare() -> None:
    """Begin to load what drawing needs; this returns at once."""
    forkserver.ensure_running()


@contextmanager
def drawn(pictures: Iterable[Picture], folder: Path) -> Iterator[None]:
    """The files of every picture are in `folder` when the block has ended: they are drawn while it runs."""
    with ProcessPoolExecutor(mp_context=_CONTEXT) as pool:
        pending = [pool.submit(_draw, picture, folder) for picture in pictures]
        yield
        for done in pending:
            done.result()


def _draw(picture: Picture, folder: Path) -> None:
    draw, contents = import_module(f"deltaw.exhibit.{picture.exhibit}").draw, picture.contents
    if picture.times_chance:
        contents = contents | {"scale": import_module("deltaw.exhibit.panel").TIMES_CHANCE}
    import_module("deltaw.exhibit.files").save(draw(**contents), folder / picture.name)
