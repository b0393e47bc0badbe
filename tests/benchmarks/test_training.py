"""`benchmarks/training.py`: the same work for every side, and figures that compare what each took."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch.nn.functional import cross_entropy
from training_parts import ordered, prepare
from training_parts.peer import same_schedule
from training_parts.report import (
    LEGEND,
    Spread,
    figures,
    sentences_of_pairs,
    spread,
    summary,
    table,
    table_in_short,
    table_of_pairs,
    upper_limit,
)
from training_parts.sides import BEST, DEFAULTS, EAGER, OURS, PAIRED, TRL, Trained
from training_parts.validation import loss_of
from transformers import AutoModelForCausalLM

from deltaw.data.batches import Examples, StepBatches
from deltaw.data.corpus import Corpus
from deltaw.data.held_out import held_out
from deltaw.model.loading import load_tokenizer
from deltaw.training.build import corpus_of
from deltaw.training.task import LoraArms
from tests.support.tiny import ROOT, make_base, make_pairs

STEPS, BATCH, LENGTH = 2, 16, 40
WIDTH = 128  # with half as many outputs at k and v, the least that takes r=64


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    settings = ["model=hub", f"model.path={make_base(folder / 'base', WIDTH)}"]
    data = ["data=jsonl", f"data.path={make_pairs(folder / 'pairs.jsonl', 200)}", f"data.max_length={LENGTH}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["prepare", str(folder), json.dumps(settings), json.dumps(data), str(STEPS)])
        prepare.main()
    return folder


def rows(folder: Path, name: str) -> list[dict[str, list[int]]]:
    found: list[dict[str, list[int]]] = json.loads((folder / f"{name}.tokens.json").read_text())
    return found


def read(file: Path) -> Counter[str]:
    return Counter(file.read_text().splitlines())


def test_every_side_learns_the_same_examples_once(prepared: Path) -> None:
    parts = [read(prepared / f"{name}.jsonl") for name in ("train", "validation")]
    assert [part.total() for part in parts] == [STEPS * BATCH, 128]
    assert parts[0] + parts[1] <= read(prepared / "pairs.jsonl") and len(rows(prepared, "train")) == STEPS * BATCH


def corpus_of_ours(folder: Path) -> Corpus:
    files = [f"data.path={folder}/train.jsonl", f"data.validation_path={folder}/validation.jsonl"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        base = f"model.path={folder}/base"
        cfg = compose("train", ["model=hub", base, "data=jsonl", *files, f"data.max_length={LENGTH}"])
    return corpus_of(cfg.data, cfg.task, load_tokenizer(cfg.model.path))


def test_train_py_reads_the_tokens_that_peers_get(prepared: Path) -> None:
    corpus = corpus_of_ours(prepared)
    examples = [prepare.tokens_of(corpus, number) for number in range(len(corpus))]
    assert examples == rows(prepared, "train") + rows(prepared, "validation")


@pytest.mark.parametrize("seed", [0, 3])
def test_the_paired_peer_learns_at_every_step_what_our_arms_learn(
    prepared: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["ordered", str(prepared), str(seed)])
    ordered.main()
    theirs, corpus = rows(prepared, f"train-s{seed}"), corpus_of_ours(prepared)
    learnt = Examples(corpus, held_out(corpus, 1, 0)[0], lambda examples: {})
    ours = StepBatches(learnt, [], BATCH, BATCH, STEPS, 0, 1)
    for step in range(STEPS):
        drawn = [prepare.tokens_of(corpus, int(learnt.chosen[number])) for number in ours.drawn(seed, step)[0]]
        assert sorted(map(str, theirs[step * BATCH :][:BATCH])) == sorted(map(str, drawn))
    assert theirs != rows(prepared, "train")


def test_labels_are_those_of_completions_alone(prepared: Path) -> None:
    for row in rows(prepared, "train"):
        learnt = [label for label in row["labels"] if label != -100]
        assert learnt and row["input_ids"][-len(learnt) :] == learnt and len(row["labels"]) == len(row["input_ids"])


def test_flops_are_those_of_the_formula(prepared: Path) -> None:
    lengths = np.array([len(row["input_ids"]) for row in rows(prepared, "train")])
    labels = sum(label != -100 for row in rows(prepared, "train") for label in row["labels"])
    layer = WIDTH**2 * (1 + 1 + 0.5 + 0.5 + 3 * 1.5)  # q and o, k and v of half the heads, three of the MLP
    arm = 8 * WIDTH * ((1 + 1) + (1 + 0.5))  # A and B at q and v, r=8
    in_layers = (4 * layer + 6 * arm) * lengths.sum() + 12 * WIDTH * (lengths**2).sum() / 2
    expected = 3 * in_layers + 4 * 300 * WIDTH * labels
    train = json.loads((prepared / "about.json").read_text())["train"]
    assert train["tokens"] == lengths.sum() and train["flops"]["8"] == pytest.approx(expected)


def test_the_loss_is_the_mean_over_all_labels(prepared: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(prepared / "base", dtype=torch.float32).eval()
    held_out = rows(prepared, "validation")
    with torch.no_grad():
        logits = [model(torch.tensor([row["input_ids"]])).logits[0, :-1] for row in held_out]
    targets = torch.cat([torch.tensor(row["labels"][1:]) for row in held_out])
    by_row = float(cross_entropy(torch.cat(logits), targets))
    assert loss_of(model, held_out, mixed=False) == pytest.approx(by_row, rel=1e-5)


@pytest.mark.parametrize(("total", "rise"), [(12, 1), (150, 9), (1, 1)])
def test_peers_have_our_learning_rate_at_every_step(total: int, rise: int) -> None:
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=1.0)
    peer = SimpleNamespace(args=SimpleNamespace(max_steps=total), optimizer=optimizer, create_optimizer=lambda: None)
    same_schedule(peer, rise)
    task = cast(LoraArms, SimpleNamespace(trainer=SimpleNamespace(max_steps=total), warmup=rise / total))
    (share,) = cast(Any, peer).lr_scheduler.lr_lambdas
    assert [share(step) for step in range(total)] == [LoraArms._share_of_peak(task, step) for step in range(total)]


def trained(wall: float, *arms: str) -> Trained:
    return Trained(wall, 4.0, wall - 5, 2**30, {arm: {} for arm in arms}, {"5": wall / 2, "10": wall - 1}, None)


def test_figures_of_two_processes_are_sums() -> None:
    train = {"tokens": 1000, "flops": {"8": 1e9, "64": 2e9}}
    found = figures([trained(15.0, "r8"), trained(25.0, "r64")], 10, train, 1e9, {})
    assert (found["wall_s"], found["start_up_s"], found["step_s"]) == (40, 8, 3)
    assert found["tokens_per_s"] == pytest.approx(2000 / 30) and found["mfu"] == pytest.approx(3 / 30)


def measured(side: str, seed: int, wall: float, early: float, late: float) -> dict[str, Any]:
    losses = {arm: {"5": early, "10": late} for arm in ("r8", "r64")}
    reached = {"5": wall / 2, "10": wall}
    numbers = {"start_up_s": 1.0, "step_s": wall / 10, "tokens_per_s": 5.0, "mfu": 0.5, "peak_gib": 1.0}
    return {"side": side, "seed": seed, "wall_s": wall, **numbers, "losses": losses, "reached_s": reached}


def test_the_time_to_a_loss_is_that_of_the_first_step_as_good_on_all_seeds() -> None:
    noise = [0.004, -0.004, 0.002, -0.002]
    results = [measured(DEFAULTS, seed, 40.0, 2.0, 1.0 + seed) for seed in range(4)]
    results += [measured(OURS, seed, 20.0, 1.0 + seed + noise[seed], 0.9 + seed) for seed in range(4)]
    found = summary(results, 10)
    assert found["ours_as_a_share"][DEFAULTS] == {"wall_s": spread([0.5]), "step_s": spread([0.5])}
    assert found["our_loss_minus_theirs"][DEFAULTS]["r8"]["mean"] == pytest.approx(-0.1)
    reached = found["reached"][DEFAULTS]
    assert reached["step"] == 5 and reached["share_of_whole_job"] == {DEFAULTS: spread([0.25])}
    late = [
        row if row["side"] == DEFAULTS else measured(OURS, row["seed"], 20.0, 9.0, row["seed"] + 1.0) for row in results
    ]
    assert summary(late, 10)["reached"][DEFAULTS]["step"] == 10


def test_a_paired_loss_is_reached_in_the_time_of_the_timed_measurement() -> None:
    theirs = [measured(PAIRED, seed, 1.0, 2.0, 1.0 + seed) for seed in range(6)]
    ours = [measured(OURS, seed, 1.0, 1.005 + seed, 1.01 + seed) for seed in range(6)]
    timed = [measured(side, 0, wall, 3.0, 3.0) for side, wall in ((OURS, 20.0), (DEFAULTS, 40.0), (BEST, 25.0))]
    head, _, *rows = table_of_pairs(found(theirs + ours)).splitlines()
    assert "10 steps, 6 seeds" in head and [row.split(" | ")[1] for row in rows[2:]] == ["+0.010", "+0.010", "0.000"]
    assert head.endswith("| r=8 | r=64 | mean of both |")
    sentences = sentences_of_pairs(found(theirs + ours), [found(timed)])
    times = "10.0 s, 0.25 of its whole job, and 0.40 of what it takes at its best."
    assert sentences.endswith(f"from step 5 on. On 2 cores of P that takes {times}")
    assert "is +0.010 nats a token after 10 steps (mean of both arms, 6 seeds; upper limit +0.010)" in sentences
    single = found([theirs[0], ours[0]])
    assert table_of_pairs(single).count("–") == 6 and "not shown" in sentences_of_pairs(single, [found(timed)])


def test_the_mean_of_both_arms_may_show_what_neither_does() -> None:
    apart = [0.1, -0.1, 0.08, -0.08]
    theirs = [measured(PAIRED, seed, 1.0, 2.0, 1.0) for seed in range(4)]
    ours = [
        measured(OURS, seed, 1.0, 9.0, 0.0) | {"losses": {"r8": {"10": 1.0 + by}, "r64": {"10": 1.01 - by}}}
        for seed, by in enumerate(apart)
    ]
    upper = [row.split(" | ")[1:] for row in table_of_pairs(found(theirs + ours)).splitlines()][-2]
    assert [cell.strip(" |") for cell in upper] == ["+0.123", "+0.133", "+0.005"]
    assert "within 0.02 from step 10 on" in sentences_of_pairs(found(theirs + ours), [])
    assert summary([row | {"side": DEFAULTS} for row in theirs] + ours, 10)["reached"] == {DEFAULTS: None}


def test_what_was_as_good_for_a_while_is_not_as_good() -> None:
    theirs = [measured(DEFAULTS, seed, 40.0, 2.0, 1.0) for seed in range(4)]
    ours = [measured(OURS, seed, 20.0, 1.0, 1.1) for seed in range(4)]
    assert summary(theirs + ours, 10)["reached"] == {DEFAULTS: None}


def test_the_short_table_takes_the_trainer_at_its_fastest() -> None:
    walls = {OURS: 20.0, DEFAULTS: 40.0, BEST: 30.0, EAGER: 25.0, TRL: 10.0}
    results = [measured(side, 0, wall, 2.0, 1.0) for side, wall in walls.items()]
    (row,) = table_in_short([found(results)]).splitlines()[2:]
    assert row == "| A base, float32, 10 steps, 1 seed | 2 cores of P | 0.50 | 0.80 | 0.50 | 0.80 |"


def test_one_seed_cannot_tell_when_a_loss_is_reached() -> None:
    found = summary([measured(DEFAULTS, 0, 40.0, 2.0, 1.0), measured(OURS, 0, 20.0, 1.0, 0.5)], 10)
    assert found["reached"] == {DEFAULTS: None}


def test_a_ratio_is_the_median_of_the_ratios_of_each_seed() -> None:
    ours, theirs = [10.0, 20.0, 90.0], [40.0, 40.0, 100.0]
    results = [measured(DEFAULTS, seed, wall, 2.0, 1.0) for seed, wall in enumerate(theirs)]
    results += [measured(OURS, seed, wall, 2.0, 1.0) for seed, wall in enumerate(ours)]
    found = summary(results, 10)
    assert found["ours_as_a_share"][DEFAULTS]["wall_s"] == Spread(0.5, 0.25, 0.9)  # not 20 / 40, nor 120 / 180
    assert found["figures"][OURS]["wall_s"] == Spread(20, 10, 90)
    assert found["figures"][OURS]["wall_s"].words(1) == "20.0 (10.0–90.0)" and spread([2.0, 2.0]).words(1) == "2.0"


def test_an_upper_limit_is_student_s() -> None:
    assert upper_limit([1.0, 2.0, 3.0]) == pytest.approx(2 + 2.919986 / 3**0.5) and upper_limit([1.0]) is None


def test_the_table_has_a_row_for_each_side() -> None:
    results = [measured(side, 0, wall, 2.0, 1.0) for side, wall in ((OURS, 20.0), (DEFAULTS, 40.0), (BEST, 30.0))]
    head, *lines = table([found(results)]).splitlines()
    assert head.startswith("A base, r=8 and r=64, 10 steps of 16 examples, float32, 1 seed; 2 cores of P")
    assert [line.split(" | ")[1:3] for line in lines[3:6]] == [["20.0", ""], ["40.0", "0.50"], ["30.0", "0.67"]]
    assert lines[6:] == ["", LEGEND]


def test_a_table_of_several_seeds_has_ranges_and_sentences() -> None:
    results = [measured(DEFAULTS, seed, 40.0, 2.0, 1.0) for seed in range(3)]
    results += [measured(BEST, seed, 30.0, 2.0, loss) for seed, loss in enumerate([1.1, 0.9, 1.0])]
    results += [measured(OURS, seed, wall, 2.0, 1.0) for seed, wall in enumerate([20.0, 24.0, 22.0])]
    *lines, sentences, _, legend = table([found(results)]).splitlines()
    assert lines[4].split(" | ")[1:3] == ["22.0 (20.0–24.0)", ""]
    assert lines[5].split(" | ")[1:3] == ["40.0", "0.55 (0.50–0.60)"]
    assert sentences == (
        "`deltaw train` is as good as Hugging Face Trainer + PEFT (defaults) after step 10: 22.0 (20.0–24.0) s, 0.55 "
        "(0.50–0.60) of its whole job, and 0.73 (0.67–0.80) of what it takes at its best. It is not shown to be as "
        "good as Hugging Face Trainer + PEFT (at its best) by step 10: its loss minus theirs is +0.000 at r=8 (upper "
        "limit +0.169) and +0.000 at r=64 (upper limit +0.169)."
    )
    assert legend == LEGEND and "at most 0.02 nats" in legend


def found(results: list[dict[str, Any]]) -> dict[str, Any]:
    about = {"title": "A base", "steps": 10, "batch": 16, "dtype": "float32"}
    return {"machine": {"processor": "P", "cores": 2, "card": None}, "workload": about, "results": results}


@pytest.mark.slow
def test_two_sides_train_and_are_compared(tmp_path: Path) -> None:
    base, pairs = make_base(tmp_path / "base", WIDTH), make_pairs(tmp_path / "pairs.jsonl", 200)
    words = ["smollm2", f"--model={base}", f"--data={pairs}", "--steps=2", "--seeds=1", f"--work={tmp_path}"]
    command = [sys.executable, str(ROOT / "benchmarks" / "training.py"), *words, f"--out={tmp_path}/out.json"]
    for _ in range(2):  # again, and nothing is measured again
        subprocess.run([*command, "--sides", OURS, BEST], check=True, capture_output=True, text=True)
        found = json.loads((tmp_path / "out.json").read_text())
        assert [row["side"] for row in found["results"]] == [OURS, BEST] and found["told"][BEST][0]["lora"]["r"] == 8
    other = subprocess.run([*command, "--steps=3"], capture_output=True, text=True)
    assert other.returncode and "give another --work" in other.stderr


@pytest.mark.slow
def test_from_our_start_and_with_our_examples_a_peer_learns_what_our_arms_learn(tmp_path: Path) -> None:
    words = ["paired", "--steps=3", "--seeds=1", f"--work={tmp_path}", f"--out={tmp_path}/out.json"]
    command = [sys.executable, str(ROOT / "benchmarks" / "training.py"), *words]
    subprocess.run(command, check=True, capture_output=True, text=True)
    rows = json.loads((tmp_path / "out.json").read_text())["results"]
    ours, theirs = (row["losses"] for row in rows)
    assert [row["side"] for row in rows] == [OURS, PAIRED]
    assert all(ours[arm]["3"] == pytest.approx(theirs[arm]["3"], abs=1e-4) for arm in ("r8", "r64"))
