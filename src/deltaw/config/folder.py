"""Where the YAML of the configs lies: inside an installed package, and beside `src/` in a clone."""

from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "conf"
CONF = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[3] / "conf"
