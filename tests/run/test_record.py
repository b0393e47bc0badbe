import json
from pathlib import Path

import pytest

from deltaw.errors import UserError
from deltaw.run.record import ArmRecord, RunRecord, settings_of
from deltaw.run.weights import Weight

ARM: ArmRecord = {
    "name": "r2-s0",
    "rank": 2,
    "seed": 0,
    "alpha": 16.0,
    "scaling": "alpha/r",
    "lr": 0.1,
    "control": None,
}
BASE = {"name": "tiny", "sha256": "b"}


def test_a_record_survives_a_round_trip(tmp_path: Path) -> None:
    weights = {"layers.0.q_proj": Weight("/base/model.safetensors", "q_proj.weight", ((0, 2), (4, 6)), False)}
    record = RunRecord(name="mine", base={"name": "tiny", "sha256": "b"}, arms=[ARM], weights=weights)
    record.save(tmp_path / "run.json")
    assert RunRecord.load(tmp_path / "run.json") == record


def test_the_file_lists_the_fields_in_a_fixed_order(tmp_path: Path) -> None:
    RunRecord(base={"name": "tiny", "sha256": "b"}, arms=[ARM]).save(tmp_path / "run.json")
    keys = "name base task arms init modules heads weights data versions hardware".split()
    assert list(json.loads((tmp_path / "run.json").read_text())) == keys
    assert (tmp_path / "run.json").read_text().startswith('{\n  "name": "",\n')


def test_records_of_older_and_of_newer_versions_load(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"base": BASE, "arms": [ARM], "of_the_future": 1}))
    record = RunRecord.load(tmp_path / "run.json")
    assert (record.arms, record.task, record.weights) == ([ARM], "causal", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "cannot be read"), ("[]", "does not tell"), ('{"arms": []}', "does not tell"), (None, "is missing")],
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=rf"run\.json.* {message}"):
        RunRecord.load(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": []}, "base is a list, not an object"),
        ({"base": {"name": "tiny"}}, "base lacks sha256"),
        ({"arms": {"name": "a"}}, "arms is an object, not a list"),
        ({"arms": [ARM, ARM | {"rank": "8"}]}, r"arms\[1\].rank is '8', not a whole number"),
        ({"arms": [{"name": "a"}]}, r"arms\[0\] lacks alpha, control, lr, rank, scaling, seed"),
        ({"arms": [ARM | {"name": "../../other"}]}, "an arm is called '../../other'"),
        ({"arms": [ARM | {"name": ""}]}, "an arm is called ''"),
        ({"arms": [ARM | {"name": "a\0"}]}, "an arm is called"),
        ({"arms": [ARM, ARM]}, "two arms are called 'r2-s0'"),
        ({"task": 1}, "task is 1, not text"),
        ({"data": {"fingerprint": None}}, "data.fingerprint is null, not text"),
        ({"weights": {"q": {"file": "a", "tensor": "b", "rows": [[0]], "transposed": False}}}, "not a list of 2"),
    ],
)
def test_a_record_of_other_types_is_refused_by_its_key(tmp_path: Path, change: dict[str, object], words: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"base": BASE, "arms": [ARM]} | change))
    with pytest.raises(UserError, match=rf"run\.json: .*{words}.*: put it right, or train the run again"):
        RunRecord.load(tmp_path / "run.json")


def test_arms_that_differ_in_the_control_alone_share_their_settings() -> None:
    control: ArmRecord = {**ARM, "name": "r2-s0-shuffled", "control": "shuffled"}
    assert settings_of(ARM) == settings_of(control)
    assert settings_of(ARM, seed=1) == settings_of({**ARM, "seed": 1}) != settings_of(ARM)
