"""`benchmarks/gpu.py`: every part bounded, its results kept, and one that fails leaves the others to run."""

import json
from dataclasses import replace
from pathlib import Path

import gpu
import pytest
from gpu_parts.sizes import FULL, SMALL, TOY

TOO_LARGE = SMALL | {"hidden_size": 2**22, "vocab_size": 2**22}  # 32 TiB for the embedding alone


def results(out: Path, part: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((out / f"{part}.json").read_text())["results"]
    return found


def test_a_shape_too_large_leaves_the_other_results_and_parts(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = replace(TOY, shapes={"small": SMALL, "too large": TOO_LARGE})
    assert gpu.run(tmp_path, ["plan", "profile"], sizes) == 1
    whole, failed = results(tmp_path, "plan")[:3], results(tmp_path, "plan")[3:]
    assert [result["base"] for result in whole] == ["bundled", "small", "small"]
    # On a CPU in bfloat16, short rows keep their attention's weights, which the plan for a GPU does not count.
    assert all(-0.1 < float(str(result["plan_is_above_by"])) < 0.05 for result in whole)
    assert [result["base"] for result in failed] == ["too large", "too large"]
    assert all("can't allocate memory" in str(result["error"]) for result in failed)
    assert len(results(tmp_path, "profile")) == 10
    waits = json.loads((tmp_path / "profile.json").read_text())["waits_in_ten_steps"]
    assert waits["aten::item"].keys() <= {"aten::_fused_adamw_"} and not waits["aten::is_nonzero"]
    ended = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert ended["profile"]["error"] is None
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: plan: RuntimeError: ") and "profile" not in line


def test_a_part_that_takes_too_long_is_stopped_and_keeps_what_it_knew(tmp_path: Path) -> None:
    sizes = replace(TOY, limits={"profile": 0.5})
    assert gpu.run(tmp_path, ["profile"], sizes) == 1
    ended = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert ended["profile"]["error"].startswith("stopped after 0.5 s")


def test_without_a_gpu_the_way_to_try_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "card_of", no_card)
    assert gpu.run(tmp_path, ["plan"], FULL) == 1
    assert "PyTorch finds no GPU here: give --toy" in capfd.readouterr().err


def no_card(device: str) -> None:
    """A machine without a GPU."""


def test_all_parts_take_six_minutes_at_most() -> None:
    assert sum(FULL.limits.values()) <= 360
