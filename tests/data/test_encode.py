"""What becomes of a record, task by task, and how it is kept."""

import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from deltaw.data.corpus import Corpus, cache_folder, tokenised
from deltaw.data.encode import Encoder
from deltaw.data.example import IGNORED, Example
from deltaw.data.record import Columns, Row
from deltaw.errors import UserError
from tests.support.texts import WORDS, Rows, corpus, tokenizer

MARKED = (
    "{% for turn in messages %}w{{ 10 if turn.role == 'user' else 11 }} "
    "{% if turn.role == 'assistant' %}{% generation %}{{ turn.content }} w9 {% endgeneration %}"
    "{% else %}{{ turn.content }} w9 {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}w11 {% endif %}"
)
PLAIN = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
FORGETFUL = "{% for turn in messages[-1:] %}w10 {{ turn.content }}{% endfor %}"
CHAT = [
    {"role": "user", "content": "w1"},
    {"role": "assistant", "content": "w2 w3"},
    {"role": "user", "content": "w4"},
    {"role": "assistant", "content": "w5"},
    {"role": "user", "content": "w6"},
]


def framed(pair: str = "w38 $A w39 $B w39") -> PreTrainedTokenizerFast:
    """A tokenizer that adds tokens 39 and 40 around a text, as BERT's does."""
    tokens = tokenizer(eos_token="<end>", cls_token="w38", sep_token="w39")
    tokens.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="w38 $A w39", pair=pair, special_tokens=[("w38", 39), ("w39", 40)]
    )
    return tokens


def typed(last: int) -> PreTrainedTokenizerFast:
    """The same, with token types: 1 in the second text, and `last` at its end."""
    tokens = framed(f"w38 $A w39 $B:1 w39:{last}")
    tokens.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    return tokens


def all_of(made: Corpus) -> list[Example]:
    return [made[n] for n in range(len(made))]


def chat(template: str | None, messages: Sequence[Row] = CHAT, max_length: int = 50) -> Corpus:
    tokens = tokenizer()
    tokens.chat_template = template
    return corpus([{"messages": messages}], tokens, max_length=max_length)


def test_a_long_prompt_loses_its_beginning_and_then_a_completion_its_end() -> None:
    rows = [
        {"prompt": "w1 w2 w3", "completion": "w4 w5"},
        {"prompt": "w1", "completion": "w2 w3 w4 w5 w6 w7"},
        {"prompt": "w1", "completion": "w2"},
        {"prompt": "", "completion": "w2"},
        {"prompt": "w1", "completion": " "},
    ]
    made = corpus(rows, max_length=5)
    tokens = [([3, 4], [5, 6, 0]), ([2], [3, 4, 5, 6]), ([2], [3, 0]), ([0], [3, 0])]
    assert all_of(made) == [(prompt, completion, completion) for prompt, completion in tokens]
    assert (made.shortened, made.dropped) == (2, 1)
    assert corpus(rows[2:3], eos=False)[0] == ([2], [3], [3])


def test_a_whole_text_is_learnt_from_its_second_token_where_nothing_stands_before_it() -> None:
    text = [{"text": "w1 w2 w3 w4"}, {"text": ""}]
    assert corpus(text)[0] == ([0], [2, 3, 4, 5, 0], [2, 3, 4, 5, 0])
    assert corpus(text, max_length=3).dropped == 1
    assert corpus(text, max_length=3)[0].completion == [2, 3]
    assert corpus(text, framed(), eos=False)[0].prompt == [39]
    nothing = tokenizer(pad_token="<end>")
    assert corpus(text, nothing, eos=False)[0] == ([2], [3, 4, 5], [3, 4, 5])
    with pytest.raises(UserError, match=r"has no eos_token, with which completions end: .* data.eos=false"):
        corpus(text, nothing)


@pytest.mark.parametrize("template", [MARKED, PLAIN])
def test_of_a_chat_the_turns_of_the_assistant_are_learnt_alone(template: str) -> None:
    made = chat(template)[0]
    x = IGNORED
    assert made == ([11, 2, 10, 12], [3, 4, 10, 11, 5, 10, 12, 6, 10], [3, 4, 10, x, x, x, x, 6, 10])
    cut = chat(template, max_length=6)
    assert cut[0] == ([12], [3, 4, 10, 11, 5], [3, 4, 10, x, x]) and cut.shortened == 1
    assert cut._spans[0].tolist() == [1, 6, 3]


def test_a_chat_that_cannot_be_read_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match=r"has no chat_template, which messages are written by: give a base"):
        chat(None)
    with pytest.raises(UserError, match=r"row 0: the chat template of .* writes turn 2 otherwise as part of"):
        chat(FORGETFUL)
    with pytest.raises(UserError, match=r"row 0 has messages that the chat template refuses \(no system\)"):
        chat("{{ raise_exception('no system') }}")
    with pytest.raises(UserError, match=r"row 0 has no messages in field 'messages' but \[\{\"from\": \"human\"\}\]"):
        chat(PLAIN, [{"from": "human"}])
    with pytest.raises(UserError, match=r"all 1 examples have an empty completion, or lose it"):
        chat(PLAIN, CHAT[:1])


def test_seq2seq_keeps_what_the_tokenizer_adds_at_both_sides() -> None:
    rows = [{"prompt": "w1 w2 w3 w4", "completion": "w5 w6 w7"}, {"prompt": "w1", "completion": ""}]
    made = corpus(rows, framed(), "seq2seq", max_length=4, max_completion=4)
    assert all_of(made) == [([39, 2, 3, 40], [39, 6, 40, 0], [39, 6, 40, 0])]
    assert (made.shortened, made.dropped) == (1, 1)
    assert corpus(rows, framed(), "seq2seq", max_length=6)[0] == (
        [39, 2, 3, 4, 5, 40],
        [39, 6, 7, 8, 40, 0],
        [39, 6, 7, 8, 40, 0],
    )


def test_names_of_classes_are_numbered_in_sorted_order_and_numbers_stay() -> None:
    rows = [{"text": "w1 w2 w3 w4", "label": name} for name in ("zebra", "ant", "newt", "ant")]
    made = corpus(rows, framed(), "classification", max_length=4)
    assert made.labels == ["ant", "newt", "zebra"]
    assert all_of(made) == [([39, 2, 3, 40], [n], [n]) for n in (2, 0, 1, 0)]
    assert made.shortened == 4
    numbered = corpus([{**row, "label": n} for row, n in zip(rows, (2, 0, 2, 2), strict=True)], task="classification")
    assert numbered.labels == ["0", "1", "2"] and [one.labels for one in all_of(numbered)] == [[2], [0], [2], [2]]
    known = corpus([{"text": "", "label": 1}], task="classification", classes=["no", "yes", "maybe"])
    assert (known.labels, known[0]) == (["no", "yes", "maybe"], ([0], [1], [1]))
    both = Columns(text=("premise", "{hypothesis[0]} w3"))
    pair = corpus([{"premise": "w1", "hypothesis": ["w2"], "label": 0}], framed(), "classification", columns=both)
    assert pair[0].prompt == [39, 2, 40, 3, 4, 40]


PAIR = [{"text": "w1 w2", "more": "w3 w4 w5", "label": 1}]


def test_of_two_texts_the_longer_is_cut_and_types_are_kept_for_each_token() -> None:
    both = Columns(text=("text", "more"))
    whole = corpus(PAIR, typed(0), "classification", columns=both)
    assert whole[0] == ([39, 2, 3, 40, -5, -6, -7, 40], [1], [1])
    shorter = [corpus(PAIR, typed(1), "classification", length, columns=both) for length in (7, 2)]
    assert [(made[0].prompt, made.shortened) for made in shorter] == [
        ([39, 2, 3, 40, -5, -6, -41], 1),
        ([39, 40, -41], 1),
    ]
    with pytest.raises(UserError, match=r"gives tokens the types \[2\] beside 0 and 1, which are not kept"):
        corpus(PAIR, typed(2), "classification", columns=both)


def test_tokens_without_types_are_not_taken_for_those_with_them() -> None:
    tokens, plain = typed(1), typed(1)
    plain.model_input_names = ["input_ids", "attention_mask"]
    one, other = (Encoder(given, "classification", 9, None, True, None).settings() for given in (tokens, plain))
    assert one != other


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


def test_fields_have_other_names_or_make_a_template() -> None:
    rows = [{"q": "w1", "a": {"long": "w2 w3"}, "text": "w4"}]
    named = Columns(prompt="{q} w9", completion="{a[long]}")
    assert corpus(rows, columns=named, eos=False)[0] == ([2, 10], [3, 4], [3, 4])
    assert corpus(rows, eos=False)[0].completion == [5]
    with pytest.raises(UserError, match=r"row 0 has no '\{a\[short\]\}' \(it has \['a', 'q', 'text'\]\)"):
        corpus(rows, columns=Columns(prompt="q", completion="{a[short]}"))
    with pytest.raises(UserError, match=r"has the fields \['a', 'q', 'text'\], and task=seq2seq reads 'prompt' and"):
        corpus(rows, task="seq2seq")


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=40), st.integers(2, 30))
def test_lengths_are_those_of_the_examples_and_none_is_too_long(sizes: list[tuple[int, int]], max_length: int) -> None:
    rows = [{"prompt": " ".join(WORDS[:p]), "completion": " ".join(WORDS[:c])} for p, c in [*sizes, (1, 1)]]
    made = corpus(rows, max_length=max_length)
    chosen = np.arange(len(made))[::-1]
    found = [made[n] for n in chosen.tolist()]
    true = [(len(one.prompt), len(one.completion), sum(label != IGNORED for label in one.labels)) for one in found]
    assert made.lengths(chosen).tolist() == [list(lengths) for lengths in true]
    assert all(p >= 1 and c >= 1 and p + c <= max_length for p, c, _ in true)
    assert made.dropped == sum(c == 0 for _, c in sizes)


def encoder(max_length: int = 50, eos: bool = True) -> Encoder:
    return Encoder(tokenizer(), "causal", max_length, None, eos, None)


def test_tokens_are_made_once_for_the_same_content_and_anew_for_any_other(tmp_path: Path) -> None:
    source = Rows([{"prompt": "w1", "completion": "w2"}])
    for _ in range(2):
        tokenised(source, Columns(), encoder(), tmp_path)
    assert source.read == 1
    tokenised(source, Columns(), encoder(max_length=9), tmp_path)
    tokenised(source, Columns(), encoder(eos=False), tmp_path)
    assert source.read == 3
    other = Rows([{"prompt": "w1", "completion": "w3"}])
    assert tokenised(other, Columns(), encoder(), tmp_path)[0].completion == [4, 0] and other.read == 1
    made = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert len(made) == 4 and not any(path.name.startswith(".") for path in made)
    for path in made:
        (path / "tokens.bin").write_bytes(b"1234")  # cut short, as by a full disk
    assert tokenised(source, Columns(), encoder(), tmp_path)[0] == ([2], [3, 0], [3, 0])


def _make(folder: Path, made: "multiprocessing.Queue[list[int]]") -> None:
    source = Rows([{"prompt": "w1", "completion": "w2"}] * 3000)
    made.put([source.read, len(tokenised(source, Columns(), encoder(), folder)), source.read])


def test_processes_that_ask_at_once_make_one_corpus(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    made: multiprocessing.Queue[list[int]] = context.Queue()
    processes = [context.Process(target=_make, args=(tmp_path, made)) for _ in range(4)]
    for process in processes:
        process.start()
    results = sorted(made.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
    assert results == [[0, 3000, 0]] * 3 + [[0, 3000, 1]]


def test_what_fails_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    good = {"prompt": "w1", "completion": "w2"}
    with pytest.raises(UserError, match=r"row 2500 has no text in field 'completion' but null"):
        tokenised(Rows([good] * 2500 + [{**good, "completion": None}]), Columns(), encoder(), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data.cache=.*/file cannot be written \(.*\): give another"):
        tokenised(Rows([good]), Columns(), encoder(), tmp_path / "file")


def test_the_cache_is_where_it_is_told_or_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DELTAW_CACHE", "/somewhere")
    assert [cache_folder("/else").as_posix(), cache_folder(None).as_posix()] == ["/else", "/somewhere"]
    monkeypatch.delenv("DELTAW_CACHE")
    assert cache_folder(None) == Path.home() / ".cache" / "deltaw"


def test_the_files_hold_what_they_are_said_to(tmp_path: Path) -> None:
    tokenised(Rows([{"prompt": "w1 w2", "completion": "w3"}] * 2), Columns(), encoder(), tmp_path)
    (folder,) = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert np.fromfile(folder / "tokens.bin", np.int32).tolist() == [2, 3, 4, 0] * 2
    assert np.fromfile(folder / "spans.bin", np.int64).tolist() == [2, 4, 2, 6, 8, 2]
    assert json.loads((folder / "about.json").read_text())["labels"] == []
