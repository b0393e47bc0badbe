"""The notebook in docs runs. With the library that its text came from, its stored outputs are those of its cells."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from deltaw.data import calls
from tests.support.tiny import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
LARGEST = 200_000  # bytes of the file: it is in the repository


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(cell: dict[str, Any]) -> list[list[str]]:
    """What each output of a cell is, as text/plain and image/png; without what libraries warn of."""
    outputs = [output for output in cell["outputs"] if output["output_type"] != "stream"]
    return [sorted(output.get("data", {"error": ""})) for output in outputs]


NUMBER = r"\d+(?:\.\d+)?"


def texts(cell: dict[str, Any]) -> list[str]:
    """The texts of its outputs, without the random name of the folder that the run lies in."""
    outputs = [output.get("data", {}) for output in cell["outputs"]]
    shown = [text for output in outputs for kind, text in sorted(output.items()) if kind.startswith("text/")]
    return [re.sub(r"[^\s>']*(?=/example/)", "", "".join(text)) for text in shown]


def check_numbers(found: str, stored: str) -> None:
    """Another processor rounds otherwise, and 20 steps of training add to that."""
    for one, other in zip(re.findall(NUMBER, found), re.findall(NUMBER, stored), strict=True):
        digit = 10.0 ** -len(other.partition(".")[2])
        assert float(one) == pytest.approx(float(other), rel=0.02, abs=3 * digit), (one, other, found)


def test_its_outputs_are_stored_and_small() -> None:
    assert NOTEBOOK.stat().st_size < LARGEST
    cells = code_cells(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    assert len(cells) > 5 and all(cell["outputs"] for cell in cells[1:])
    found = [kind for cell in cells for output in kinds(cell) for kind in output]
    assert found.count("image/png") == 2 and found.count("text/html") >= 3 and "error" not in found


@pytest.mark.slow
def test_it_runs_again(tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    stored = nbformat.read(NOTEBOOK, as_version=4)
    again = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(again, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for made, cell in zip(code_cells(again), code_cells(stored), strict=True):
        assert kinds(made) == kinds(cell)
        if calls._fingerprint(calls.Calls().pairs) == calls.REFERENCE_FINGERPRINT:  # else other examples are learned
            for found, expected in zip(texts(made), texts(cell), strict=True):
                assert re.sub(NUMBER, "#", found) == re.sub(NUMBER, "#", expected)
                check_numbers(found, expected)
