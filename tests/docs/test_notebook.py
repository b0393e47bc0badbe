"""The notebook in docs runs, and its stored outputs are those of its cells."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
LARGEST = 200_000  # bytes of the file: it is in the repository


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def kinds(cell: dict[str, Any]) -> list[list[str]]:
    """What each output of a cell is, as text/plain and image/png; without what libraries warn of."""
    outputs = [output for output in cell["outputs"] if output["output_type"] != "stream"]
    return [sorted(output.get("data", {"error": ""})) for output in outputs]


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
    assert [kinds(cell) for cell in code_cells(again)] == [kinds(cell) for cell in code_cells(stored)]
