"""Pictures, drawn in other processes: they load matplotlib while this process loads PyTorch."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any

# Drawing processes are forked from a server process, which has loaded these modules and never starts a thread.
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "deltaw.config.schema",
        "deltaw.exhibit.drawing.files",
        "matplotlib.backends.backend_agg",
        "matplotlib.backends.backend_pdf",
    ]
)


@dataclass(frozen=True)
class Picture:
    """An exhibit to draw, or a variant of it.

    Attributes:
        exhibit: its name.
        contents: the arguments of its `draw`.
        source: "model" and "data" → their names, for the subtitle.
        variant: what its colours mean, one of `SCALES`: "" for φ, "times-chance" or "minus-control".
    """

    exhibit: str
    contents: dict[str, Any]
    source: dict[str, list[str]]
    variant: str = ""

    @property
    def name(self) -> str:
        """The name of its files, without a suffix."""
        return f"{self.exhibit}-{self.variant}" if self.variant else self.exhibit

    def draw(self) -> Any:
        """The figure of matplotlib; this loads matplotlib."""
        from deltaw.exhibit.drawing import DRAW  # here, because only drawing processes and notebooks load matplotlib
        from deltaw.exhibit.drawing.scale import SCALES

        scale = {"scale": SCALES[self.variant]} if self.variant else {}
        return DRAW[self.exhibit](**self.contents, **scale, source=self.source)


def prepare() -> None:
    """Begin to load matplotlib in the server process; this returns at once."""
    forkserver.ensure_running()


@contextmanager
def drawing(pictures: Iterable[Picture], folder: Path) -> Iterator[None]:
    """Draw the pictures into `folder` while the block runs; when it has ended, all files are there."""
    with ProcessPoolExecutor(mp_context=_CONTEXT) as pool:
        pending = [pool.submit(_draw, picture, folder) for picture in pictures]
        yield
        for picture in pending:
            picture.result()


def _draw(picture: Picture, folder: Path) -> None:
    from deltaw.exhibit.drawing.files import save

    save(picture.draw(), folder / picture.name)
