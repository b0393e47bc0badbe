"""`benchmarks/gallery.py`: a picture small enough for the documents, and still the same picture."""

from pathlib import Path

import gallery
import numpy as np
from PIL import Image

from deltaw.exhibit.selection import EXHIBITS


def test_a_picture_is_made_smaller_and_not_changed(tmp_path: Path) -> None:
    across = np.tile(np.linspace(0, 255, 1500, dtype=np.uint8), (900, 1))
    Image.fromarray(np.stack([across, across[:, ::-1], across // 2], axis=2)).save(tmp_path / "large.png")
    gallery.shrink(tmp_path / "large.png", tmp_path / "small.png")
    with Image.open(tmp_path / "small.png") as small, Image.open(tmp_path / "large.png") as large:
        assert small.size == (gallery.WIDTH, 432)
        expected = np.asarray(large.resize(small.size), dtype=float)
        assert np.abs(np.asarray(small.convert("RGB")) - expected).mean() < 4
    Image.new("RGB", (300, 200)).save(tmp_path / "large.png")
    gallery.shrink(tmp_path / "large.png", tmp_path / "small.png")
    with Image.open(tmp_path / "small.png") as small:
        assert small.size == (300, 200)


def test_every_exhibit_is_in_the_gallery_and_on_its_page() -> None:
    page = (gallery.PLACE.parent / "exhibits.md").read_text(encoding="utf-8")
    pictures = {path.stem for path in gallery.PLACE.glob("*.png")}
    assert pictures >= EXHIBITS.keys() and all(f"exhibits/{name}.png" in page for name in pictures)
