"""Where shipped files lie: configs, in an installed package or beside `src/` in a clone, and the bundled base."""

from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "conf"
CONF = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[3] / "conf"
BUNDLED = Path(__file__).parents[1] / "bundled"
