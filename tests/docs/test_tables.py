"""The tables of README and docs are what the committed results say: `python benchmarks/tables.py` writes them."""

from pathlib import Path

import pytest
import tables
from tables import BLOCK, DOCUMENTS, TABLES, with_tables


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_tables_of_a_document_are_those_of_the_results(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    assert with_tables(text) == text


def test_every_table_stands_in_a_document() -> None:
    texts = [document.read_text(encoding="utf-8") for document in DOCUMENTS]
    named = [block[2] for text in texts for block in BLOCK.finditer(text)]
    assert set(named) == set(TABLES)


def test_what_stands_between_two_tables_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "TABLES", {"one": lambda: "| 1 |", "two": lambda: "| 2 |"})
    one, two = ("<!-- benchmarks/tables.py: {} -->\n{}<!-- end -->".format(name, "old\n") for name in ("one", "two"))
    assert with_tables(f"a\n{one}\nb\n{two}\nc") == f"a\n{one}\nb\n{two}\nc".replace("old", "| 1 |", 1).replace(
        "old", "| 2 |"
    )
    with pytest.raises(ValueError, match="no <!-- end -->"):
        with_tables(f"{one.removesuffix('<!-- end -->')}b\n{two}")
    with pytest.raises(KeyError, match="three"):
        with_tables(one.replace("one", "three"))
