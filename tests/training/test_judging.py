"""The base, the arms and their cuts on the judged examples, at the end of a run and of one that is started again."""

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

import deltaw.commands.train as commands_train
from deltaw.data.batches import Examples
from deltaw.data.example import Example
from deltaw.errors import UserError
from deltaw.run.directory import RunDirectory
from deltaw.run.writer import RunWriter, write_adapter
from deltaw.training import judging
from deltaw.training.validation import Batches
from tests.support.tiny import factors, learnt, metrics, run

JUDGED = ["data.judged=10", "arms.seeds=[0,1]", "arms.scaling=rslora", "arms.controls=[shuffled]", "truncate=[1,3,8]"]
JUDGED += ["trainer.max_steps=5", "arms.shadows=0", "optim.lr=0.02"]
SITES = {f"{projection} of layer {layer}" for projection in "qv" for layer in (1, 2, 3)}
PARTS = SITES | {"q", "v"} | {f"layer {n}" for n in (1, 2, 3)}
KEYS = ["arm", "step", "cut", "dropped", "example"]


@pytest.fixture(scope="module")
def judged(folder: Path) -> Path:
    return run(folder, *JUDGED, "truncate_sites=true", "run.name=judged")


def rows(run: Path) -> pd.DataFrame:
    """The judged rows of a run, in one order whatever the order of judging."""
    table = RunDirectory(run).evaluation().query("split == 'judged'").drop(columns="split")
    return table.sort_values(KEYS, ignore_index=True)


def variants(run: Path) -> set[tuple[str, int, int, str]]:
    """Arm, step, cut (0 for none) and what was dropped."""
    return {*rows(run).fillna({"cut": 0})[KEYS[:4]].itertuples(index=False, name=None)}


def assert_same_rows(left: Path, right: Path) -> None:
    pd.testing.assert_frame_equal(rows(left), rows(right), rtol=1e-12, atol=0)


def test_the_base_all_arms_and_the_best_recipe_of_the_largest_rank_cut_are_judged(judged: Path) -> None:
    arms = ["r2-s0", "r6-s0", "r2-s1", "r6-s1"]
    uncut = {(arm + control, step, 0, "") for arm in arms for control in ("", "-shuffled") for step in (0, 5)}
    cuts = {(arm, 5, k, "") for arm in ("r6-s0", "r6-s1") for k in (1, 3)}
    best = RunDirectory(judged).validation().end[["r6-s0", "r6-s1"]].idxmin()
    assert variants(judged) == uncut | cuts | {(best, 5, 0, part) for part in PARTS}
    table = rows(judged)
    assert (table.groupby(["arm", "step", "cut", "dropped"], dropna=False).example.nunique() == 10).all()
    bases = table[table.step == 0].pivot(index="example", columns="arm", values="loss")
    assert bases.eq(bases["r2-s0"], axis=0).all(axis=None)


@pytest.fixture(scope="module")
def examples(folder: Path, judged: Path) -> list[Example]:
    """Those that the run judges by, by ascending number."""
    corpus = learnt(folder).corpus
    return [corpus[number] for number in sorted({*rows(judged).example})]


def plain_losses(folder: Path, adapter: Path, examples: list[Example]) -> list[float]:
    """The losses of a PEFT folder on examples, one by one."""
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float64)
    model = PeftModel.from_pretrained(base, adapter, autocast_adapter_dtype=False)
    losses = []
    for row in examples:
        with torch.no_grad():
            logits = model(torch.tensor([row.prompt + row.completion])).logits[0, len(row.prompt) - 1 : -1]
        losses.append(cross_entropy(logits, torch.tensor(row.completion), reduction="sum").item())
    return losses


@pytest.mark.parametrize(("cut", "dropped"), [(1, ""), (3, ""), (None, ""), (None, "v of layer 2"), (None, "q")])
def test_a_variant_has_the_losses_of_peft_with_the_dense_svds_best_approximation(
    folder: Path, judged: Path, examples: list[Example], tmp_path: Path, cut: int | None, dropped: str
) -> None:
    table = rows(judged)
    arm = table[table.dropped != ""].arm.iloc[0]  # the better seed
    of_variant = table[(table.arm == arm) & (table.step == 5) & (table.dropped == dropped)]
    of_variant = of_variant[of_variant.cut.isna() if cut is None else of_variant.cut == cut]
    tensors = factors(judged, arm, 5)
    for name in [name for name in tensors if "lora_A" in name]:
        A, B = tensors[name], tensors[name.replace("lora_A", "lora_B")]
        U, values, Vh = torch.linalg.svd(B @ A, full_matrices=False)
        k = cut or len(A)
        A_k = torch.zeros_like(A)
        A_k[:k], B[:, :k], B[:, k:] = Vh[:k], (U * values)[:, :k], 0
        if (dropped == "v of layer 2" and "1.self_attn.v_proj" in name) or (dropped == "q" and "q_proj" in name):
            B[:] = 0
        tensors[name] = A_k
    snapshot = judged / "snapshots" / arm / "step-00000005"
    write_adapter(tmp_path / "variant", tensors, {}, {})
    (tmp_path / "variant" / "adapter_config.json").write_text((snapshot / "adapter_config.json").read_text())
    assert of_variant.loss.tolist() == pytest.approx(plain_losses(folder, tmp_path / "variant", examples), abs=1e-9)


def test_a_finished_run_started_again_judges_what_it_lacks_and_trains_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "run.name=again"
    again = run(folder, *JUDGED, name, "truncate=[]")
    assert {cut for _, _, cut, _ in variants(again)} == {0}
    before, written = rows(again), metrics(again)
    checkpoint = (again / "checkpoints" / "last.ckpt").stat().st_mtime_ns
    monkeypatch.setattr(commands_train, "fit", None)
    capsys.readouterr()
    run(folder, *JUDGED, name, "truncate=[3,2,3]")
    assert "judging: 4 variants on 10 examples" in capsys.readouterr().out
    run(folder, *JUDGED, name, "truncate=[1,2]")
    assert "judging: 2 variants on 10 examples" in capsys.readouterr().out
    assert {(arm, cut) for arm, _, cut, _ in variants(again) if cut} == {
        (arm, cut) for arm in ("r6-s0", "r6-s1") for cut in (1, 2, 3)
    }
    kept = rows(again)
    pd.testing.assert_frame_equal(kept[kept.cut.isna()].reset_index(drop=True), before)
    assert metrics(again) == written and (again / "checkpoints" / "last.ckpt").stat().st_mtime_ns == checkpoint
    monkeypatch.setattr(commands_train, "load", None)  # nothing more is loaded where nothing is lacking
    run(folder, *JUDGED, name, "truncate=[1]")
    assert "again is finished" in capsys.readouterr().out


def stop(writer: RunWriter, table: pd.DataFrame) -> None:
    """Append as the writer does, but get a signal at the second group of judged rows."""
    there = writer.run.evaluation()
    if (there.split == "judged").any():
        os.kill(os.getpid(), signal.SIGTERM)
    append(writer, table)


append = RunWriter.append_evaluation


def test_judging_that_a_signal_ends_goes_on_with_the_next_group(
    folder: Path, judged: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And an arm is judged alike whatever stands beside it: here, in the end, nothing does."""
    settings = [*JUDGED, "truncate_sites=true", "run.name=stopped"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(RunWriter, "append_evaluation", stop)
        run(folder, *settings)
    assert stopped.value.code == 128 + signal.SIGTERM
    assert "stopped before all was judged: the same command goes on" in capsys.readouterr().out
    directory = folder / "runs" / "stopped"
    assert 0 < len(variants(directory)) < len(variants(judged))
    monkeypatch.setattr(commands_train, "fit", None)
    monkeypatch.setattr(judging, "MOST", 1)
    assert_same_rows(run(folder, *settings), judged)


def test_nothing_is_judged_without_examples_and_the_summary_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = run(folder, "trainer.max_steps=2", "run.name=none")
    out = capsys.readouterr().out
    assert "no example set aside to judge by (give data.judged, and more data if they are few)" in out
    assert "judging" not in out and not len(rows(none))


def test_an_arm_that_diverged_is_judged_as_it_is_and_not_cut(folder: Path) -> None:
    settings = ["data.judged=6", "truncate=[1]", "truncate_sites=true", "trainer.max_steps=3", "arms.ranks=[2]"]
    settings += ["trainer.precision=32-true"]
    diverged = run(folder, *settings, "arms.lrs=[1e37]", "run.name=diverged")
    assert variants(diverged) == {("r2-s0-lr1e+37", step, 0, "") for step in (0, 3)}
    assert rows(diverged).query("step == 3").loss.isna().any()
    one_of_two = run(folder, *settings, "arms.lrs=[1e37,2e-3]", "run.name=diverged-one")
    assert {arm for arm, _, cut, dropped in variants(one_of_two) if cut or dropped} == {"r2-s0"}


@pytest.mark.parametrize("setting", ["truncate=[0]", "truncate=[4,-1]"])
def test_a_rank_to_cut_to_is_at_least_1(folder: Path, setting: str) -> None:
    with pytest.raises(UserError, match=r"truncate=(0|-1): give 1 or more"):
        run(folder, setting)
    with pytest.raises(Exception, match="truncate"):
        run(folder, "truncate=[half]")


def test_examples_are_clustered_by_their_group(folder: Path) -> None:
    """The groups of the judged rows are those of the data set."""
    file = folder / "authors.jsonl"
    lines = [f'{{"prompt": "add {n} >", "completion": "close {n}", "author": "{n % 20}"}}\n' for n in range(60)]
    file.write_text("".join(lines))
    grouped = run(
        folder, f"data.path={file}", "data.group=author", "data.judged=6", "run.name=grouped", "trainer.max_steps=2"
    )
    table = rows(grouped)
    assert (table.group == table.example % 20).all() and table.group.nunique() == 2


def test_forward_passes_have_no_more_rows_than_those_of_the_training(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    original = Examples.batches

    def batches(self: Examples, rows: int) -> Batches:
        seen.append((rows, len(self)))
        return original(self, rows)

    monkeypatch.setattr(Examples, "batches", batches)
    settings: list[Any] = ["data.judged=6", "trainer.max_steps=1", "truncate=[1,2,3,4,5]", "arms.ranks=[6]"]
    run(folder, *settings, "data.micro_batch=4", "run.name=memory")
    assert [rows for rows, examples in seen if examples == 6] == [1, 1]  # seven variants, in groups of up to four
