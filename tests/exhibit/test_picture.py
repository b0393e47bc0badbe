"""Pictures are drawn in other processes, and no process loads both matplotlib and PyTorch."""

import subprocess
import sys
from pathlib import Path

import pytest

from deltaw.exhibit.drawing import DRAW, fig6
from deltaw.exhibit.drawing.files import save
from deltaw.exhibit.drawing.scale import SCALES
from deltaw.exhibit.picture import Picture, drawing
from deltaw.exhibit.selection import EXHIBITS
from tests.support.tables import phi


def test_every_exhibit_can_be_drawn() -> None:
    assert list(DRAW) == list(EXHIBITS)


def test_pictures_are_drawn_while_the_block_runs(tmp_path: Path) -> None:
    cells, source = phi(2, 4, [1]), {"model": ["bundled"], "data": ["calls"]}
    pictures = [Picture("fig6", {"cells": cells, "layers": [1]}, source, variant) for variant in SCALES]
    with drawing(pictures, tmp_path):
        pass
    for name, scale in zip(("fig6", "fig6-times-chance", "fig6-minus-control"), SCALES.values(), strict=True):
        save(fig6.draw(cells, [1], scale, source), tmp_path / "here")
        assert (tmp_path / f"{name}.png").read_bytes() == (tmp_path / "here.png").read_bytes()


def test_an_error_in_drawing_is_raised_here(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="'rows'"), drawing([Picture("table6", {"rows": 0}, {})], tmp_path):
        pass


@pytest.mark.parametrize(
    ("module", "other"), [("deltaw.commands.analyze", "matplotlib"), ("deltaw.exhibit.drawing", "torch")]
)
def test_no_process_loads_both_matplotlib_and_pytorch(module: str, other: str) -> None:
    subprocess.run([sys.executable, "-c", f"import sys, {module}; assert {other!r} not in sys.modules"], check=True)
