"""The pairs that a run offers, and where W of its base lies, also after the base has moved."""

import json
from pathlib import Path

import pytest

from deltaw.analysis.pairs import AdapterPair, adapter_pair, with_distinct_names
from deltaw.config.folder import BUNDLED
from deltaw.errors import UserError
from deltaw.run.adapter import load_adapter
from deltaw.run.directory import RunDirectory
from deltaw.run.weights import Weight
from tests.support.folders import write_adapter, write_run


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


@pytest.mark.parametrize(
    ("left", "right", "names"),
    [
        ("a/r8", "a/r64", ("r8", "r64")),
        ("a/r8/checkpoint-200", "a/r64/checkpoint-300", ("r8/checkpoint-200", "r64/checkpoint-300")),
        ("a/b/c/r8/last", "d/e/f/r64/last", ("r8/last", "r64/last")),
        ("a/b/c/d", "e/b/c/d", ("a/b/c/d", "e/b/c/d")),
        ("a", "a/b", ("a", "a/b")),
        ("hub/models--me--one/snapshots/0af1", "hub/models--me--two/snapshots/9c32", ("one", "two")),
        ("hub/models--me--one/snapshots/0af1", "here", ("me/one", "here")),
    ],
)
def test_folders_go_by_the_last_parts_that_tell_them_apart(
    tmp_path: Path, left: str, right: str, names: tuple[str, str]
) -> None:
    one, other = (load_adapter(write_adapter(tmp_path / folder, rank=2)) for folder in (left, right))
    assert tuple(side.name for side in with_distinct_names(one, other)) == names


def test_a_folder_called_as_an_arm_keeps_its_path(tmp_path: Path) -> None:
    arm = RunDirectory(write_run(tmp_path / "run", "r2-s0")).adapter("r2-s0")
    folder = load_adapter(write_adapter(tmp_path / "r2-s0", rank=2))
    left, right = with_distinct_names(arm, folder)
    assert (left.name, right.name) == ("r2-s0", str(tmp_path / "r2-s0"))


def test_arms_beside_a_pair_are_compared_at_its_sites(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r2-s0", "r2-s1", "r2-s0-shadow1", "r2-s0-shuffled"))
    other = RunDirectory(write_run(tmp_path / "other", "r4-s0", "r4-s1", "r4-s0-shadow1", layers=2))
    pair = adapter_pair(run.adapter("r2-s0"), other.adapter("r4-s0"))
    assert len(pair.left.sites) == len(pair.right.sites) == 4
    beside = [*pair.study.pairings(), *pair.over_time(), *adapter_pair(pair.right, pair.left).controls()]
    assert len(beside) > 5
    assert {tuple(arm.sites) for pairing in beside for arm in (pairing.left, pairing.right)} == {tuple(pair.left.sites)}


def test_a_pair_that_cannot_be_compared_is_refused_with_the_keys_of_the_command(tmp_path: Path) -> None:
    left = load_adapter(write_adapter(tmp_path / "left", rank=2, init_lora_weights="pissa"))
    right = load_adapter(write_adapter(tmp_path / "right", rank=4))
    with pytest.raises(UserError, match="by left_start= or right_start="):
        adapter_pair(left, right)
