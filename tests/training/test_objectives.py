"""Objectives, losses and metrics: a row does not depend on the other rows, and plain loops give the same numbers."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer, DebertaV2Tokenizer, PreTrainedTokenizerBase, RobertaTokenizer

from deltaw.data.batches import IGNORED, Example
from deltaw.data.packing import packed_batch
from deltaw.data.reader import Columns
from deltaw.errors import UserError
from deltaw.model.loading import load_base, load_tokenizer
from deltaw.training.metrics import of_classes, of_tokens
from deltaw.training.objectives import (
    Causal,
    Classification,
    Objective,
    Seq2Seq,
    by_row,
    losses_and_predictions,
    repeated,
    targets,
)
from tests.support.architectures import Architecture
from tests.support.texts import corpus
from tests.support.tiny import WORDS, make_bart, make_base, make_bert, make_t5

OBJECTIVES: dict[str, type[Objective]] = {"causal": Causal, "seq2seq": Seq2Seq, "classification": Classification}
MAKE = {"llama": make_base, "bert": make_bert, "t5": make_t5, "bart": make_bart}


def rows(task: str, lengths: list[tuple[int, int]]) -> list[Example]:
    """Rows with the given numbers of tokens in prompt and completion."""
    draw = torch.Generator().manual_seed(0)

    def tokens(count: int) -> list[int]:
        return torch.randint(5, 99, (count,), generator=draw).tolist()

    made = [(tokens(p), [n % 3] if task == "classification" else tokens(c)) for n, (p, c) in enumerate(lengths)]
    return [Example(prompt, completion, completion) for prompt, completion in made]


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("causal", "llama"),
        ("seq2seq", "t5"),
        ("seq2seq", "bart"),
        ("classification", "bert"),
        ("classification", "llama"),
        ("classification", "t5"),
    ],
)
def test_the_loss_of_a_row_does_not_depend_on_the_other_rows(tmp_path: Path, task: str, name: str) -> None:
    folder = MAKE[name](tmp_path)
    labels = 3 if task == "classification" else None
    base = load_base(str(folder), load_tokenizer(str(folder)), task=task, labels=labels)
    model, objective = base.model.double().eval(), OBJECTIVES[task](base.pad)
    examples = rows(task, [(1, 4), (9, 2), (4, 4), (6, 1)])
    if name == "t5" and task == "classification":  # it pools its end of text, which its tokenizer writes
        examples = [row._replace(prompt=[*row.prompt, 0]) for row in examples]

    def losses(batch: list[Example]) -> list[float]:
        collated = objective.collate(batch)
        return by_row(collated, losses_and_predictions(objective, model, collated)[0]).tolist()

    alone = [loss for row in examples for loss in losses([row])]
    assert losses(examples) == pytest.approx(alone, abs=1e-9)
    assert len({round(loss, 6) for loss in alone}) == len(alone)


SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BYTES = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "Ġ", *map(chr, range(ord("a"), ord("z") + 1))]
# By model: its tokenizer, whether the tokenizer gives token types, and settings of the config.
TOKENIZERS: dict[str, tuple[PreTrainedTokenizerBase, bool, dict[str, int]]] = {
    "bert": (BertTokenizer(vocab={token: n for n, token in enumerate([*SPECIAL, *WORDS])}), True, {}),
    "deberta-v2": (
        DebertaV2Tokenizer(vocab=[(token, -1.0) for token in (*SPECIAL, *(f"▁{word}" for word in WORDS))]),
        True,
        {"type_vocab_size": 2},
    ),
    "roberta": (
        RobertaTokenizer(vocab={token: n for n, token in enumerate(BYTES)}, merges=[]),
        False,
        {"pad_token_id": 1},
    ),
}


@pytest.mark.parametrize("max_length", [80, 9])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_two_texts_reach_the_model_as_its_tokenizer_encodes_them(name: str, max_length: int) -> None:
    tokenizer, typed, settings = TOKENIZERS[name]
    counts = {"first": [1, 7, 4, 0, 12], "second": [8, 2, 4, 3, 0]}
    texts = {field: [" ".join(WORDS[-n:] if n else []) for n in ns] for field, ns in counts.items()}
    rows = [{"first": first, "second": second, "label": 0} for first, second in zip(*texts.values(), strict=True)]
    made = corpus(rows, tokenizer, "classification", max_length, columns=Columns(text=list(texts)))
    objective = OBJECTIVES["classification"](settings.get("pad_token_id", 0))
    batch = objective.collate([made[n] for n in range(len(made))])
    given = tokenizer(*texts.values(), truncation=True, max_length=max_length, padding=True, return_tensors="pt")
    assert {key: ids.tolist() for key, ids in batch.items() if not key.startswith("label")} == {
        key: ids.tolist() for key, ids in given.items()
    }
    model = Architecture(name, settings, "classification").build()
    with torch.no_grad():
        theirs, ours = model(**given).logits, objective.at_labels(model, batch, lambda logits, _: logits)
        without = model(**{key: ids for key, ids in given.items() if key != "token_type_ids"}).logits
    assert torch.equal(ours, theirs) and torch.equal(ours, without) != typed


def test_causal_labels_are_the_completion_and_a_sequence_to_sequence_keeps_them_apart() -> None:
    batch = OBJECTIVES["causal"](9).collate([Example([1, 2], [3], [3]), Example([4], [5, 6, 7], [5, IGNORED, 7])])
    assert batch["input_ids"].tolist() == [[1, 2, 3, 9], [4, 5, 6, 7]]
    assert batch["labels"].tolist() == [[IGNORED, IGNORED, 3, IGNORED], [IGNORED, 5, IGNORED, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch["labelled"].tolist() == [2, 5, 7] and targets(batch).tolist() == [3, 5, 7]
    batch = OBJECTIVES["seq2seq"](9).collate([Example([1, 2], [3], [3]), Example([4], [5, 6], [5, 6])])
    assert batch["input_ids"].tolist() == [[1, 2], [4, 9]]
    assert batch["labels"].tolist() == [[3, IGNORED, IGNORED], [5, 6, IGNORED]]  # longer than what is read
    assert batch["labelled"].tolist() == [0, 3, 4]


def test_nothing_predicts_the_first_token_of_a_row() -> None:
    batch = OBJECTIVES["causal"](9).collate([Example([], [5, 6], [5, 6]), Example([], [7], [7])])
    assert targets(batch).tolist() == [6]


def test_a_packed_row_has_the_labels_of_its_examples() -> None:
    longest = Example([6], [5, 8, 9, 7], [5, IGNORED, 9, 7])
    examples = [Example([1, 2], [3], [3]), longest, Example([4], [5], [5])]
    batch = packed_batch([examples], OBJECTIVES["causal"](9).collate, limit=0)
    assert sorted(targets(batch).tolist()) == [3, 5, 5, 7, 9]
    assert by_row(batch, torch.ones(5)).tolist() == [3, 2]


def test_repeated_rows_have_the_same_labels_each_time() -> None:
    batch = repeated(OBJECTIVES["causal"](9).collate([Example([1, 2], [3], [3]), Example([4], [5], [5])]), 2)
    assert targets(batch).tolist() == [3, 5, 3, 5]
    assert by_row(batch, torch.tensor([1, 2, 3, 4])).tolist() == [1, 2, 3, 4]


Loop = Callable[[list[list[int]], list[list[int]]], float]


def accuracy(predicted: list[list[int]], true: list[list[int]]) -> float:
    pairs = [(p, t) for ps, ts in zip(predicted, true, strict=True) for p, t in zip(ps, ts, strict=True) if t >= 0]
    return sum(p == t for p, t in pairs) / len(pairs)


def exact_match(predicted: list[list[int]], true: list[list[int]]) -> float:
    right = [all(p == t or t < 0 for p, t in zip(*row, strict=True)) for row in zip(predicted, true, strict=True)]
    return sum(right) / len(right)


def f1(predicted: list[list[int]], true: list[list[int]]) -> float:
    """The mean over the labels that occur, as true or as predicted ones."""
    pairs = [(p[0], t[0]) for p, t in zip(predicted, true, strict=True)]
    each = []
    for label in {label for pair in pairs for label in pair}:
        hits = sum(p == t == label for p, t in pairs)
        each.append(2 * hits / sum((p == label) + (t == label) for p, t in pairs))
    return sum(each) / len(each)


def matthews(predicted: list[list[int]], true: list[list[int]]) -> float:
    """Correlation of the indicators of labels, summed over labels."""
    p, t = (torch.nn.functional.one_hot(torch.tensor(rows)[:, 0], 3).double() for rows in (predicted, true))
    p, t = p - p.mean(0), t - t.mean(0)
    scale = (p.square().sum() * t.square().sum()).sqrt()
    return float((p * t).sum() / scale) if scale > 0 else 0.0


METRICS: dict[str, dict[str, Loop]] = {
    "causal": {"accuracy": accuracy},
    "seq2seq": {"accuracy": accuracy, "exact_match": exact_match},
    "classification": {"accuracy": accuracy, "f1": f1, "matthews": matthews},
}


@pytest.mark.parametrize("task", METRICS)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 12))
def test_metrics_are_those_of_plain_loops_however_they_are_cut(task: str, seed: int, cut: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    width = 1 if task == "classification" else 3
    predicted, true = (torch.randint(0, 3, (12, width), generator=draw) for _ in range(2))
    true[torch.randint(0, 4, true.shape, generator=draw) == 0] = IGNORED if width > 1 else 0
    true[0, 0] = 1
    expected = {name: loop(predicted.tolist(), true.tolist()) for name, loop in METRICS[task].items()}
    if task == "classification":
        metric = of_classes(3)
        for p, t in zip(predicted.flatten().split(cut), true.flatten().split(cut), strict=True):
            metric.update(p, t)
        found = {name: float(value) for name, value in metric.compute().items()}
    else:
        right, labels = (predicted == true).sum(1), (true != IGNORED).sum(1).numpy()
        twice = of_tokens(torch.stack([right, 0 * right]), labels, whole=task == "seq2seq")
        found, none = twice
        assert none["accuracy"] == 0
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_model_that_looks_ahead_is_refused_for_causal_training(tmp_path: Path) -> None:
    folder = str(make_bert(tmp_path))
    with pytest.raises(UserError, match="looks ahead, so that task=causal would teach it to copy"):
        load_base(folder, load_tokenizer(folder))
