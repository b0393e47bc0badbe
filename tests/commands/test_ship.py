"""`deltaw analyze` ends with the answer, and `advice=ship` writes the cut that it ships."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from deltaw import load_adapter
from deltaw.advice.answer import Advice, Cut, Evidence, Ship
from deltaw.commands.analyze import analyse
from deltaw.commands.ship import cut_to_ship
from deltaw.config.folder import CONF
from deltaw.config.schema import register
from deltaw.errors import UserError
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_adapter, write_run
from tests.support.judged import Examples, Measured, write_judged

register()
FILES = ["adapter_config.json", "adapter_model.safetensors"]


def judged_run(path: Path, **costs: float) -> Path:
    """A run of r2-s0 and r8-s0, which cut to n=4 and 2 loses the given nats a token (cut4, cut2) of its gain of 2."""
    examples = Examples(count=200)
    uncut = examples.arm(2.0)
    cuts = {int(name.removeprefix("cut")): examples.arm(-cost, 0.001, of=uncut) for name, cost in costs.items()}
    arms = {"r2-s0": Measured(examples.arm(1.9)), "r8-s0": Measured(uncut, cuts=cuts)}
    judged = write_judged(path.with_name(f"{path.name}-judged"), examples, arms)
    run = write_run(path, *arms)
    shutil.copy(judged.path / "evaluation.parquet", run)
    return run


def analysed(run: Path, *overrides: str) -> list[str]:
    """Analyse a run in one basis and without figures; the files of its analysis in folders."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        analyse(compose("analyze", [f"run={run}", "exhibits=[]", "basis=A", "output=" + str(run / "out"), *overrides]))
    return sorted(str(path.relative_to(run / "out")) for path in (run / "out").rglob("*/*") if path.is_file())


def test_the_answer_is_told_last_before_the_page_and_first_in_the_summary(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = judged_run(tmp_path / "run", cut4=0.001, cut2=0.1)
    assert analysed(run) == []
    advice = json.loads((run / "out" / "advice.json").read_text())
    first = advice["sentences"][0]
    assert first.startswith("Ship r8-s0 cut to 4: it keeps 99.9") and first.endswith("in half of the parameters.")
    told = capsys.readouterr().out.splitlines()
    assert told[-len(advice["sentences"]) - 2 :] == ["", *advice["sentences"], str(run / "out" / "report.html")]
    assert (run / "out" / "summary.md").read_text().split("\n\n")[1:3] == ["## Which rank", f"**{first}**"]
    assert json.loads((run / "out" / "summary.json").read_text())["advice"] == advice


def test_a_shipped_cut_is_a_folder_of_peft_and_goes_when_another_is_shipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = judged_run(tmp_path / "run", cut4=0.001, cut2=0.1)
    folder = run / "out" / "ship" / "r8-s0-cut4"
    assert analysed(run, "advice=ship") == [f"ship/r8-s0-cut4/{name}" for name in FILES]
    assert f'PeftModel.from_pretrained(base, "{folder}") loads it' in capsys.readouterr().out
    assert {lora.rank for lora in load_adapter(folder).sites.values()} == {4}
    (folder / "notes.md").write_text("mine")
    (run / "out" / "ship" / "own").mkdir()
    (run / "out" / "ship" / "own" / "draft").touch()
    kept = ["ship/own/draft", "ship/r8-s0-cut4/notes.md"]
    both = sorted([*kept, *(f"ship/r8-s0-cut4/{name}" for name in FILES)])
    assert analysed(run) == both  # an analysis that ships nothing leaves it
    assert analysed(run) == both
    assert analysed(run, "advice=ship", "margin=0.1") == sorted([*kept, *(f"ship/r8-s0-cut2/{name}" for name in FILES)])
    assert not list(run.rglob(".*"))


def test_where_no_cut_is_shipped_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = judged_run(tmp_path / "worse", cut4=0.2)
    assert analysed(run, "advice=ship") == []
    told = capsys.readouterr().out.splitlines()
    assert told[-2] == "advice=ship writes nothing: no cut is advised."
    assert any(line.startswith("Ship r8-s0 as it is: no cut is shown") for line in told)
    assert analysed(write_run(tmp_path / "unjudged", "r2-s0", "r8-s0"), "advice=ship") == []
    assert "advice=ship writes nothing: no cut is advised." in capsys.readouterr().out


@pytest.mark.parametrize("there", ["ship", "ship/r8-s0-cut4/adapter_config.json"])
def test_what_a_user_has_in_the_place_of_the_cut_is_not_replaced(tmp_path: Path, there: str) -> None:
    run = judged_run(tmp_path / "run", cut4=0.001)
    analysed(run)
    (run / "out" / there).parent.mkdir(parents=True, exist_ok=True)
    (run / "out" / there).write_text("mine")
    with pytest.raises(UserError, match=f"has {re.escape(there)}, which no analysis wrote there"):
        analysed(run, "advice=ship")
    assert (run / "out" / there).read_text() == "mine"


def test_an_arm_whose_name_two_runs_have_is_cut_from_its_own(tmp_path: Path) -> None:
    runs = [RunDirectory(write_run(tmp_path / name, "r8-s0")) for name in ("a", "b")]
    half = Cut(4, 0.5, 0.0, 0.0, 1.0, 1.0, 1.0, True, None)
    evidence = Evidence(["a", "b"], 10, 200, 200, 900, 50, "token", 0.01)
    ship = Ship("b/r8-s0", 8, 0.002, [0], [half], half)
    cut = cut_to_ship(runs, Advice(None, evidence, ship=ship))
    assert cut is not None and cut.adapter.origin is not None
    assert cut_to_ship(runs, Advice(None, evidence, ship=replace(ship, better="a/r4-s0"))) is None
    assert (cut.adapter.origin.run, cut.folder) == (tmp_path / "b", "ship/r8-s0-cut4")


def test_adapter_folders_have_no_cut_to_ship_and_no_advice(tmp_path: Path) -> None:
    sides = [f"{side}={write_adapter(tmp_path / side, 2, seed=seed)}" for seed, side in enumerate(("left", "right"))]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = [*sides, "exhibits=[]", "basis=A", f"output={tmp_path / 'out'}"]
        with pytest.raises(UserError, match="advice=ship: adapter folders tell no losses"):
            analyse(compose("analyze", [*settings, "advice=ship"]))
        analyse(compose("analyze", settings))
    assert not (tmp_path / "out" / "advice.json").exists()
    assert "No losses of these adapters are known, so no rank is advised." in (tmp_path / "out/summary.md").read_text()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        *((f"margin={given}", "give a share, above 0 and below 1") for given in ("0", "1", "-0.1", "nan")),
        ("advice=sell", "advice=sell: give ship, or leave it out"),
    ],
)
def test_a_wrong_setting_is_refused_before_the_work(tmp_path: Path, setting: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        analysed(tmp_path / "none", setting)
