"""What a benchmark found, as JSON: written whole at each change, so that one that is cut off has told what it knew.

The files that README and docs take their numbers from are in `benchmarks/results/`.
"""

import json
import os
import platform
import shlex
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "transformers", "peft", "pytorch-lightning")
PEERS = ("accelerate", "trl", "litgpt", "liger-kernel")  # what a benchmark may compare with, where it is installed


class Results:
    """A list of measurements in a JSON file.

    Args:
        file: that holds them; its folder is made.
        about: what all of them share, as `measured_on()` gives it.
    """

    def __init__(self, file: Path, **about: Any):
        self.file, self.found = file, {**about, "results": []}
        file.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def add(self, **measured: Any) -> None:
        """Note a measurement."""
        self.found["results"].append(_or_none(measured))
        self._write()

    @contextmanager
    def measuring(self, **what: Any) -> Iterator[None]:
        """Note an error as the result, and let the other measurements go on."""
        try:
            yield
        except Exception as error:  # whatever it is: the rest of the machine's time is too dear to lose
            traceback.print_exc()
            self.add(**what, error=in_a_line(error))

    def note(self, **about: Any) -> None:
        """Note something beside the measurements."""
        self.found |= _or_none(about)
        self._write()

    def _write(self) -> None:
        new = self.file.with_name(f".{self.file.name}.new")  # deltaw's own function would load it before its tests
        new.write_text(json.dumps(self.found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        new.replace(self.file)


def of_part(found: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
    """The measurements whose `part` is this one."""
    return [row for row in found["results"] if row.get("part") == part]


def _or_none(value: Any) -> Any:
    """What is no finite number is null in JSON."""
    if isinstance(value, dict):
        return {key: _or_none(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_or_none(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def note_failure(file: Path, error: Exception) -> None:
    """Add to what a file holds, if there is one, that the measurements ended with `error`."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"results": []}
    found["results"].append({"error": in_a_line(error)})
    file.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def in_a_line(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def measured_on(card: str | None = None) -> dict[str, Any]:
    """Machine, versions and the command typed, as every file of results says them.

    Args:
        card: name of the GPU that computes; None where the processor does.
    """
    command = shlex.join(["python", _from_root(sys.argv[0]), *sys.argv[1:]])
    return {"machine": machine(card), "versions": versions(), "command": command}


def machine(card: str | None = None) -> dict[str, Any]:
    """Processor, its cores, memory in GiB, and the GPU."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"processor": _processor(), "cores": os.cpu_count(), "memory_gib": round(memory, 1), "card": card}


def versions() -> dict[str, str]:
    """Of Python and of the libraries, and of the peers that are installed beside them."""
    found = {"python": platform.python_version()}
    for name in (*LIBRARIES, *PEERS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine_of(found: Mapping[str, Any]) -> str:
    """The GPU or the processor of a file of results, in words."""
    of = found["machine"]
    return of["card"] or f"{of['cores']} cores of {of['processor']}"


def _processor() -> str:
    """Its name as Linux has it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _from_root(script: str) -> str:
    """A script's path as one types it in the checkout."""
    root, path = Path(__file__).resolve().parent.parent, Path(script).resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else script
