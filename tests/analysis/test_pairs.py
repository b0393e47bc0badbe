"""The pairs that a run offers, and where W of its base lies, also after the base has moved."""

import json
from pathlib import Path

import pytest

from deltaw.analysis.pairs import AdapterPair
from deltaw.config.folder import BUNDLED
from deltaw.run.directory import RunDirectory
from deltaw.run.weights import Weight
from tests.support.folders import write_run


def test_w_of_the_bundled_base_is_found_where_the_base_lies_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", "r2-s0", "r4-s0")
    right = RunDirectory(run).adapter("r4-s0")
    site = next(iter(right.sites))
    record = json.loads((run / "run.json").read_text())
    gone = {"file": "/gone/model.safetensors", "tensor": "t", "rows": [[0, 1]], "transposed": False}
    moved = {"base": record["base"] | {"name": "bundled"}, "weights": {site.module: gone}}
    (run / "run.json").write_text(json.dumps(record | moved))
    asked: list[Path] = []

    def find(folder: Path, *_: object) -> Weight:
        asked.append(folder)
        return Weight("found", "t", ((0, 1),), False)

    monkeypatch.setattr("deltaw.analysis.pairs.find_weight", find)
    assert AdapterPair(right, right).find_weight(site).file == "found" and asked == [BUNDLED]


def test_an_arm_of_another_alpha_is_neither_a_seed_nor_a_control(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r4-s0", "r4-s0-a32", "r4-s0-a32-shuffled", "r4-s1-a32"))
    plain, other = run.adapter("r4-s0"), run.adapter("r4-s0-a32")
    assert [pairing.right.name for pairing in AdapterPair(plain, other).controls()] == ["r4-s0-a32-shuffled"]
    assert AdapterPair(other, plain).controls() == []
    assert AdapterPair(plain, other).two_seeds().right.name == "r4-s1-a32"
