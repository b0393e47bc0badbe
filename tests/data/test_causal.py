"""How records become examples of task=causal, and which tokens of a chat are learnt."""

from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deltaw.data.corpus import Corpus
from deltaw.data.example import IGNORED, Example
from deltaw.data.reader import Columns
from deltaw.data.record import Row
from deltaw.errors import UserError
from tests.support.texts import all_of, corpus, framed, tokenizer


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
    assert all_of(made) == [Example(prompt, completion, completion) for prompt, completion in tokens]
    assert (made.shortened, made.dropped) == (2, 1)
    assert corpus(rows[2:3], eos=False)[0] == Example([2], [3], [3])


def test_a_text_is_learnt_from_its_second_token_if_nothing_stands_before_it() -> None:
    text = [{"text": "w1 w2 w3 w4"}, {"text": ""}]
    assert corpus(text)[0] == Example([0], [2, 3, 4, 5, 0], [2, 3, 4, 5, 0])
    assert corpus(text, max_length=3).dropped == 1
    assert corpus(text, max_length=3)[0].completion == [2, 3]
    assert corpus(text, framed(), eos=False)[0].prompt == [39]
    nothing = tokenizer(pad_token="<end>")
    assert corpus(text, nothing, eos=False)[0] == Example([2], [3, 4, 5], [3, 4, 5])
    with pytest.raises(UserError, match=r"has no eos_token, with which completions end: .* data.eos=false"):
        corpus(text, nothing)


def test_fields_can_have_other_names_or_fill_a_template() -> None:
    rows = [{"q": "w1", "a": {"long": "w2 w3"}, "text": "w4"}]
    named = Columns(prompt="{q} w9", completion="{a[long]}")
    assert corpus(rows, columns=named, eos=False)[0] == Example([2, 10], [3, 4], [3, 4])
    assert corpus(rows, eos=False)[0].completion == [5]
    with pytest.raises(UserError, match=r"row 0 has no '\{a\[short\]\}' \(it has \['a', 'q', 'text'\]\)"):
        corpus(rows, columns=Columns(prompt="q", completion="{a[short]}"))
    with pytest.raises(UserError, match=r"has the fields \['a', 'q', 'text'\], and task=seq2seq reads 'prompt' and"):
        corpus(rows, task="seq2seq")


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


PREFIXES: dict[str, tuple[Any, Any]] = {
    "prepend": (normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None),
    "always": (None, pre_tokenizers.Metaspace(prepend_scheme="always", split=False)),
    "first": (None, pre_tokenizers.Metaspace(prepend_scheme="first", split=False)),
}


def prefixing(name: str) -> PreTrainedTokenizerFast:
    """Characters, and "▁x" in one, after a space that the tokenizer puts before a text as Llama 2's does."""
    letters = {one: n for n, one in enumerate(["<end>", "▁", *"qacb:", "▁q", "▁a", "▁b"])}
    backend = Tokenizer(models.BPE(letters, [("▁", "q"), ("▁", "a"), ("▁", "b")]))
    backend.normalizer, backend.pre_tokenizer = PREFIXES[name]
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


@pytest.mark.parametrize("name", PREFIXES)
def test_an_answer_has_no_space_that_the_whole_text_lacks(name: str) -> None:
    tokens = prefixing(name)
    tokens.chat_template = (
        "{% for turn in messages %}{{ 'q:' if turn.role == 'user' else 'a: ' }}{{ turn.content }}<end>{% endfor %}"
        "{% if add_generation_prompt %}a: {% endif %}"
    )
    turns = [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * 2, "bacb", strict=True)]
    made = corpus([{"messages": turns}], tokens)[0]
    behind_a_mark = "" if name == "first" else "▁"
    cue = [f"{behind_a_mark}a", ":", "▁"]
    expected = ["▁q", ":", "b", "<end>", *cue, "a", "<end>", f"{behind_a_mark}q", ":", "c", "<end>", *cue, "b", "<end>"]
    assert tokens.convert_ids_to_tokens([*made.prompt, *made.completion]) == expected


@pytest.mark.parametrize("name", PREFIXES)
def test_a_completion_follows_its_prompt_as_in_one_text(name: str) -> None:
    tokens = prefixing(name)
    rows = [("q:", " a"), ("q:", "a"), ("", "a"), ("q<end>", "a")]
    made = corpus([dict(zip(("prompt", "completion"), row, strict=True)) for row in rows], tokens, eos=False)
    for example, row in zip(all_of(made), rows, strict=True):
        whole = tokens("".join(row)).input_ids
        assert (example.prompt + example.completion)[-len(whole) :] == whole


def chat(template: str | None, messages: Sequence[Row] = CHAT, max_length: int = 50) -> Corpus:
    tokens = tokenizer()
    tokens.chat_template = template
    return corpus([{"messages": messages}], tokens, max_length=max_length)


@pytest.mark.parametrize("template", [MARKED, PLAIN])
def test_only_the_turns_of_the_assistant_are_learnt(template: str) -> None:
    made = chat(template)[0]
    x = IGNORED
    assert made == Example([11, 2, 10, 12], [3, 4, 10, 11, 5, 10, 12, 6, 10], [3, 4, 10, x, x, x, x, 6, 10])
    cut = chat(template, max_length=6)
    assert cut[0] == Example([12], [3, 4, 10, 11, 5], [3, 4, 10, x, x]) and cut.shortened == 1
    assert cut._spans[0].tolist() == [1, 6, 3]


def test_a_chat_that_cannot_be_read_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match=r"has no chat_template, which messages are written by: give a base"):
        chat(None)
    with pytest.raises(UserError, match=r"row 0: the chat template of .* writes the turns before turn 2 differently"):
        chat(FORGETFUL)
    with pytest.raises(UserError, match=r"row 0 has messages that the chat template refuses \(no system\)"):
        chat("{{ raise_exception('no system') }}")
    with pytest.raises(UserError, match=r"row 0, turn 1 of 'messages', has no text in 'value' but null: give text"):
        chat(PLAIN, [{"from": "human"}])
    with pytest.raises(UserError, match=r"all 1 examples have no turn of the assistant \(the roles are user\)"):
        chat(PLAIN, CHAT[:1])
