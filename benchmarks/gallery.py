"""Every exhibit of a run as a small picture: docs/exhibits/, which docs/exhibits.md and README.md show.

deltaw train experiment=controls 'arms.seeds=[0,1,2]' run.name=controls
python benchmarks/gallery.py runs/controls
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PLACE = Path(__file__).resolve().parents[1] / "docs" / "exhibits"
WIDTH = 720  # pixels
COLORS = 256  # in a palette, as many as it holds: a quarter of the bytes


def main(run: Path, *settings: str) -> None:
    """Draw all exhibits of a run; `settings` go to deltaw analyze."""
    with tempfile.TemporaryDirectory() as folder:
        where = [f"run={run}", f"output={folder}/analysis", *settings]
        subprocess.run([sys.executable, "-m", "deltaw", "analyze", "exhibits=all", *where], check=True)
        for picture in sorted(Path(folder, "analysis").glob("*.png")):
            shrink(picture, PLACE / picture.name)


def shrink(picture: Path, place: Path) -> None:
    """A copy at most `WIDTH` pixels wide."""
    with Image.open(picture) as image:
        width = min(WIDTH, image.width)
        small = image.convert("RGB").resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
        small.quantize(COLORS, Image.Quantize.MAXCOVERAGE, kmeans=3).save(place, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
