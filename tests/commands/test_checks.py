"""What is refused in the first seconds: before weights are read, and with no directory left behind."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import deltaw.commands.train
from deltaw.errors import UserError
from deltaw.training.task import LoraArms
from tests.support.architectures import ARCHITECTURES
from tests.support.tiny import WORDS, make_bart, make_labelled, run


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test that uses this reads weights."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the weights were read")

    monkeypatch.setattr(deltaw.commands.train, "base_of", refuse)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("arms.ranks=[17]", "rank 17 is above the width 16"),
        ("model.path={folder}/none", "none could not be loaded"),
        ("data.path={folder}/none.jsonl model.path={folder}/none", "none.jsonl could not be read"),
        ("arms.projections=[w]", "arms.projections has 'w'"),
        ("data.batch=5 data.micro_batch=2", "data.batch=5 is not a multiple"),
        ("run.dir=/dev/null/x", "run.dir=/dev/null/x cannot be written, because /dev/null cannot"),
    ],
)
@pytest.mark.usefixtures("unread")
def test_a_dry_run_refuses_what_a_run_refuses(override: str, words: str, dry_run: bool, folder: Path) -> None:
    with pytest.raises(UserError) as error:
        run(folder, *override.format(folder=folder).split(" "), f"dry_run={str(dry_run).lower()}", "run.name=refused")
    assert words in str(error.value)
    assert not (folder / "runs" / "refused").exists()


def test_a_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(folder, "dry_run=true", "run.name=dry")
    assert "deltaw train" in capsys.readouterr().out
    assert not (folder / "runs" / "dry").exists()


def with_marks(folder: Path, base: Path) -> tuple[str, str]:
    """A copy of a base whose tokenizer has two tokens more than its embedding, and pairs with one of them."""
    shutil.copytree(base, folder / "marked")
    tokenizer = AutoTokenizer.from_pretrained(folder / "marked")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|said|>", "<|unused|>"]})
    tokenizer.save_pretrained(folder / "marked")
    rows = [{"prompt": f"<|said|>{word}", "completion": word} for word in WORDS]
    (folder / "marked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"model.path={folder / 'marked'}", f"data.path={folder / 'marked.jsonl'}"


def test_a_token_without_an_embedding_is_refused_if_the_data_have_it(folder: Path, tmp_path: Path) -> None:
    base, data = with_marks(tmp_path, folder / "base")
    with pytest.raises(
        UserError,
        match=r"no embedding for: '<\|said\|>' \(300\), and the embedding has 300 rows.*resize_token_embeddings",
    ):
        run(folder, base, data, "run.name=marked")
    assert not (folder / "runs" / "marked").exists()
    assert run(folder, base, "run.name=unmarked", "trainer.max_steps=1").exists()  # other data do not have it


def test_an_example_longer_than_the_positions_is_refused(folder: Path, tmp_path: Path) -> None:
    ARCHITECTURES["bert"].save(tmp_path / "bert")
    rows = [{"text": "read write " * 90, "label": label} for label in (0, 1) * 20]
    (tmp_path / "long.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["task=classification", f"model.path={tmp_path / 'bert'}", "run.name=long", "data.max_length=170"]
    with pytest.raises(
        UserError, match=r"an example has 170 tokens, .* has positions for 160: give data.max_length=160"
    ):
        run(folder, *settings, f"data.path={tmp_path / 'long.jsonl'}")
    assert not (folder / "runs" / "long").exists()
    short = make_labelled(tmp_path / "short.jsonl")
    assert run(folder, *settings, f"data.path={short}", "trainer.max_steps=1").exists()


@pytest.mark.parametrize(
    ("prompt", "completion", "advice"),
    [
        (10, 90, "give data.max_completion={limit}"),
        (90, 10, "give data.max_length={limit}"),
        (90, 90, "give data.max_length={limit} data.max_completion={limit}"),
    ],
)
@pytest.mark.usefixtures("unread")
def test_the_advice_shortens_the_side_that_is_too_long(
    folder: Path, tmp_path: Path, prompt: int, completion: int, advice: str
) -> None:
    bart = make_bart(tmp_path / "bart")
    row = json.dumps({"prompt": "read " * prompt, "completion": "write " * completion})
    (tmp_path / "rows.jsonl").write_text(f"{row}\n" * 40)
    settings = ["task=seq2seq", f"model.path={bart}", f"data.path={tmp_path / 'rows.jsonl'}", "data.max_length=200"]
    with pytest.raises(UserError) as error:
        run(folder, *settings, "run.name=long-side")
    assert str(error.value).endswith(f"has positions for 64: {advice.format(limit=64)}")


def test_a_run_that_fails_in_its_first_step_leaves_no_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    done = run(folder, "run.name=kept", "trainer.max_steps=5")
    (done / "checkpoints" / "last.ckpt").unlink()
    monkeypatch.setattr(LoraArms, "training_step", fail)
    for name in ("failed", "kept"):
        with pytest.raises(RuntimeError, match="out of memory"):
            run(folder, f"run.name={name}", "trainer.max_steps=5")
    assert not (folder / "runs" / "failed").exists()
    assert (done / "snapshots" / "r2-s0" / "step-00000005").exists()
