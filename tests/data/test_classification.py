"""How labelled texts become examples of task=classification, and how classes get their numbers."""

import pytest

from deltaw.data.example import Example
from deltaw.data.reader import Columns
from deltaw.data.tokens import tokenizer_fingerprint
from deltaw.errors import UserError
from tests.support.texts import all_of, corpus, framed, typed

PAIR = [{"text": "w1 w2", "more": "w3 w4 w5", "label": 1}]


def test_names_of_classes_are_numbered_in_sorted_order_and_numbers_are_kept() -> None:
    rows = [{"text": "w1 w2 w3 w4", "label": name} for name in ("zebra", "ant", "newt", "ant")]
    made = corpus(rows, framed(), "classification", max_length=4)
    assert made.labels == ["ant", "newt", "zebra"]
    assert all_of(made) == [Example([39, 2, 3, 40], [n], [n]) for n in (2, 0, 1, 0)]
    assert made.shortened == 4
    numbered = corpus([{**row, "label": n} for row, n in zip(rows, (2, 0, 2, 2), strict=True)], task="classification")
    assert numbered.labels == ["0", "1", "2"] and [one.labels for one in all_of(numbered)] == [[2], [0], [2], [2]]
    known = corpus([{"text": "", "label": 1}], task="classification", classes=["no", "yes", "maybe"])
    assert (known.labels, known[0]) == (["no", "yes", "maybe"], Example([0], [1], [1]))
    both = Columns(text=("premise", "{hypothesis[0]} w3"))
    pair = corpus([{"premise": "w1", "hypothesis": ["w2"], "label": 0}], framed(), "classification", columns=both)
    assert pair[0].prompt == [39, 2, 40, 3, 4, 40]


def test_of_two_texts_the_longer_is_cut_and_types_are_kept_for_each_token() -> None:
    both = Columns(text=("text", "more"))
    whole = corpus(PAIR, typed(0), "classification", columns=both)
    assert whole[0] == Example([39, 2, 3, 40, 4, 5, 6, 40], [1], [1], (0, 0, 0, 0, 1, 1, 1, 0))
    shorter = [corpus(PAIR, typed(1), "classification", length, columns=both) for length in (7, 2)]
    assert [(made[0].prompt, made[0].token_types, made.shortened) for made in shorter] == [
        ([39, 2, 3, 40, 4, 5, 40], (0, 0, 0, 0, 1, 1, 1), 1),
        ([39, 40, 40], (0, 0, 1), 1),
    ]
    with pytest.raises(UserError, match=r"gives tokens the types \[2\] beside 0 and 1, which are not kept"):
        corpus(PAIR, typed(2), "classification", columns=both)


def test_a_tokenizer_with_types_has_another_fingerprint_than_one_without() -> None:
    tokens, plain = typed(1), typed(1)
    plain.model_input_names = ["input_ids", "attention_mask"]
    assert tokenizer_fingerprint(tokens) != tokenizer_fingerprint(plain)


@pytest.mark.parametrize(
    ("label", "classes", "words"),
    [
        (-1, None, r"row 1 has the label -1, out of the range that begins with 0"),
        (123_456, None, r"row 1 has the label 123456, out of the range of classes, 0 to 9999"),
        (3, ["a", "b", "c"], r"row 1 has the label 3, and its data set knows \['a', 'b', 'c'\] alone"),
        ("two", None, r"row 1 has the label 'two', and labels before it were as 0"),
        (0.5, None, r"row 1 has no label in field 'label' but 0.5"),
    ],
)
def test_a_label_that_is_no_class_is_named(label: object, classes: list[str] | None, words: str) -> None:
    rows = [{"text": "w1", "label": 0}, {"text": "w1", "label": label}]
    with pytest.raises(UserError, match=words):
        corpus(rows, task="classification", classes=classes)
