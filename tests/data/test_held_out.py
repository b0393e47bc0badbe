"""Which examples are learnt, which validate, which judge: no group is on two sides."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaw.data.corpus import Corpus
from deltaw.data.held_out import Split, held_out
from deltaw.data.order import permutation
from deltaw.data.record import Row
from deltaw.errors import UserError
from tests.support.templates import QWEN3, chat
from tests.support.texts import WORDS, corpus, tokenizer


def row(n: int, author: object = None) -> Row:
    """An example that no other number gives."""
    return {"prompt": WORDS[n // 20], "completion": WORDS[n % 20], "author": author}


def grouped(authors: Sequence[int], validation: Sequence[int] | None = None) -> Corpus:
    given = [row(n, author) for n, author in enumerate(authors)]
    more = None if validation is None else [row(n, author) for n, author in enumerate(validation, len(given))]
    return corpus(given, group="author", validation=more)


def sides(split: Split) -> list[list[int]]:
    return [part.tolist() for part in split[:3]]


def test_without_groups_the_examples_are_those_of_the_first_versions() -> None:
    made = corpus([row(n) for n in range(30)])
    order = permutation(30, 0, -2)
    assert sides(held_out(made, 7, 5)) == [sorted(order[12:].tolist()), order[:7].tolist(), order[7:12].tolist()]
    assert held_out(made, 7, 0).validation.tolist() == order[:7].tolist()
    assert held_out(made, 7, 5).left_out == 0
    with pytest.raises(
        UserError, match=r"data.validation=20 and data.judged=10 hold out all of 30 examples: give less"
    ):
        held_out(made, 20, 10)


def test_a_dropped_row_moves_no_other_example() -> None:
    rows = [row(n) for n in range(20)]
    some = corpus([*rows[:5], {"prompt": "w1", "completion": "", "author": None}, *rows[5:]])
    assert sides(held_out(some, 4, 3)) == sides(held_out(corpus(rows), 4, 3))


@given(
    authors=st.lists(st.integers(0, 6), min_size=8, max_size=30),
    validation=st.integers(1, 6),
    judged=st.integers(0, 6),
)
@settings(max_examples=30, deadline=None)
def test_no_group_is_on_two_sides_and_the_counts_are_those_asked_for(
    authors: list[int], validation: int, judged: int
) -> None:
    made = grouped(authors)
    try:
        split = held_out(made, validation, judged)
    except UserError as error:
        assert "hold out all of" in str(error)
        return
    assert (len(split.validation), len(split.judged)) == (validation, judged)
    of_side = [{authors[n] for n in side} for side in sides(split)]
    assert len(set.union(*of_side)) == sum(map(len, of_side))
    assert len(split.learnt) + validation + judged + split.left_out == len(authors)
    assert held_out(made, validation, 0).validation.tolist() == split.validation.tolist()


def test_unless_told_a_tenth_judges_and_what_a_validation_file_has_left() -> None:
    some = corpus([row(n) for n in range(30)])
    assert sides(held_out(some, 7, None)) == sides(held_out(some, 7, 3))
    assert len(held_out(corpus([row(n) for n in range(9)]), 2, None).judged) == 0
    own = corpus([row(n) for n in range(20)], validation=[row(n) for n in range(20, 30)])
    assert [len(held_out(own, validation, None).judged) for validation in (6, 10, 256)] == [4, 0, 0]
    two = grouped([0] * 10 + [1] * 10)
    assert sides(held_out(two, 10, None)) == sides(held_out(two, 10, 0))  # else nothing would be left to learn
    with pytest.raises(UserError, match=r"data.validation=20 and data.judged=0 hold out all of 20 examples"):
        held_out(two, 20, None)


def test_unless_told_no_more_judge_than_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deltaw.data.held_out.JUDGED", 2)
    assert len(held_out(corpus([row(n) for n in range(30)]), 7, None).judged) == 2


def test_turns_of_one_chat_stay_on_one_side() -> None:
    tokens = tokenizer()
    tokens.chat_template = QWEN3
    made = corpus([{"messages": chat("w1", f"w{n}", "w2", "w3", "w4", f"w{n}")} for n in range(10)], tokens)
    assert (len(made), made.rows) == (30, 10)
    split = held_out(made, 4, 2)
    chats = [{n // 3 for n in side} for side in sides(split)]
    assert len(set.union(*chats)) == sum(map(len, chats)) and split.left_out == 3


def test_a_validation_file_gives_what_is_held_out_and_all_else_is_learnt() -> None:
    made = corpus([row(n) for n in range(20)], validation=[row(n) for n in range(20, 30)])
    assert (len(made), made.validation) == (30, 10)
    split = held_out(made, 6, 3)
    assert split.learnt.tolist() == list(range(20)) and split.left_out == 0
    assert len(split.validation) == 6 and len(split.judged) == 3
    assert {*split.validation.tolist(), *split.judged.tolist()} < set(range(20, 30))
    assert sorted(held_out(made, 256, 0).validation.tolist()) == list(range(20, 30))
    with pytest.raises(UserError, match=r"and data.judged=1 hold out all of 10 examples in data.validation_path: give"):
        held_out(made, 256, 1)


def test_examples_are_not_learnt_whose_group_is_held_out_in_the_validation_file() -> None:
    split = held_out(grouped([0, 1, 1, 2], validation=[2, 3]), 2, 0)
    assert split.learnt.tolist() == [0, 1, 2] and sorted(split.validation.tolist()) == [4, 5] and split.left_out == 1


def test_groups_that_leave_nothing_to_learn_are_refused() -> None:
    with pytest.raises(
        UserError, match=r"all of 6 examples of 1 values of data.group=author, and examples of one stay"
    ):
        held_out(grouped([0] * 6), 1, 0)
    with pytest.raises(UserError, match=r"all of 6 examples of 2 values of data.group=author"):
        held_out(grouped([0, 0, 0, 1, 1, 1]), 4, 0)
    with pytest.raises(UserError, match=r"row 0 has the fields .* and none for data.group=writer: give one of them"):
        corpus([row(0)], group="writer")
    with pytest.raises(UserError, match=r"row 1 has no value in data.group=author: give one, or leave the row out"):
        corpus([row(0, "a"), row(1)], group="author")


def test_values_of_a_group_may_be_of_any_type_and_are_told_apart_by_it() -> None:
    made = corpus([row(n, author) for n, author in enumerate([1, "1", 1, True, ["a"], ["a"]])], group="author")
    assert np.unique(made.groups, return_inverse=True)[1].tolist() == [0, 1, 0, 2, 3, 3]


def test_a_validation_file_must_hold_other_rows_of_the_same_fields() -> None:
    rows = [row(n) for n in range(5)]
    with pytest.raises(UserError, match=r"data.validation_path holds the same rows as data.path"):
        corpus(rows, validation=rows)
    with pytest.raises(
        UserError, match=r"\['prompt', 'completion'\] is read of data.path, and \['text'\] of data.validation_path"
    ):
        corpus(rows, validation=[{"text": "w1"}])
    with pytest.raises(UserError, match=r"row 0 has the fields \['question'\], and task=causal reads"):
        corpus(rows, validation=[{"question": "w1"}])
    with pytest.raises(UserError, match=r"all examples of data.validation_path have an empty completion, or lose it"):
        corpus(rows, validation=[{"prompt": "w1", "completion": ""}])


def test_classes_are_numbered_over_both_files() -> None:
    labelled = [{"text": "w1", "label": name} for name in ("b", "c")]
    made = corpus(labelled, task="classification", validation=[{"text": "w2", "label": "a"}])
    assert made.labels == ["a", "b", "c"] and [made[n].labels for n in range(3)] == [[1], [2], [0]]
