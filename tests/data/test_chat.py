"""Which text of a chat is learnt, by the templates of ten families and in the forms that data sets have."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerBase

from deltaw.data.chat import WrittenChat, write_chat
from deltaw.data.corpus import Corpus
from deltaw.data.example import IGNORED
from deltaw.data.reader import Columns
from deltaw.data.record import Chat
from deltaw.errors import UserError
from deltaw.model.loading import load_tokenizer
from tests.support.templates import (
    CHAT,
    FAMILIES,
    GEMMA_3,
    GPT_OSS,
    LLAMA_3,
    MISTRAL,
    PARTS_ALONE,
    QWEN3,
    QWEN3_5,
    SMOLLM,
    Turns,
    chat,
)
from tests.support.texts import all_of, corpus

ANSWERS = {name: family.answers for name, family in FAMILIES.items()}


def tokens_for(template: str) -> PreTrainedTokenizerBase:
    """The bundled tokenizer, a byte-level BPE."""
    tokens = load_tokenizer("bundled")
    tokens.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    tokens.chat_template = template
    return tokens


def text_of(ids: Sequence[int]) -> str:
    return str(tokens_for("").decode(list(ids)))


def of_rows(template: str, *rows: dict[str, Any], **more: Any) -> Corpus:
    return corpus(rows, tokens_for(template), max_length=1000, **more)


def spoken(made: Corpus) -> list[list[str]]:
    """What each example learns, in the pieces between which something else stands."""
    out = []
    for example in all_of(made):
        pieces: list[list[int]] = [[]]
        for label in example.labels:
            if label != IGNORED:
                pieces[-1].append(label)
            elif pieces[-1]:
                pieces.append([])
        out.append([text_of(piece) for piece in pieces])
    return out


def written(template: str, messages: Turns, learnt: Sequence[int] | None = None) -> list[WrittenChat]:
    turns = [n for n, turn in enumerate(messages) if turn["role"] == "assistant"]
    return write_chat("row 0", Chat(messages, tuple(turns if learnt is None else learnt)), tokens_for(template))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_assistant_is_learnt_as_the_template_writes_each_turn_when_it_is_the_last(name: str) -> None:
    family = FAMILIES[name]
    made = of_rows(family.template, {"messages": CHAT})
    learnt = spoken(made)
    assert [piece for of_text in learnt for piece in of_text] == family.answers
    assert (len(made), made.rows) == (family.texts, 1)
    tokens = tokens_for(family.template)
    ends = [n + 1 for n, turn in enumerate(CHAT) if turn["role"] == "assistant"]
    for example, end in zip(all_of(made), ends if family.texts > 1 else ends[-1:], strict=True):
        whole = tokens.apply_chat_template(CHAT[:end], tokenize=False)
        assert tokens.decode(example.prompt + example.completion) == whole


@pytest.mark.parametrize("name", ["qwen3", "qwen3.5", "gpt-oss", "phi-3", "glm"])
def test_a_turn_is_learnt_after_the_tokens_of_the_cue_that_a_model_reads(name: str) -> None:
    made = of_rows(FAMILIES[name].template, {"messages": CHAT})
    tokens = tokens_for(FAMILIES[name].template)
    for example, end in zip(all_of(made), (2, 4, 6), strict=True):
        cue = tokens.apply_chat_template(CHAT[:end], tokenize=False, add_generation_prompt=True)
        assert example.prompt == tokens(cue, add_special_tokens=False).input_ids


def test_white_space_after_a_header_is_not_learnt_where_offsets_leave_it_out() -> None:
    tokens = tokens_for(SMOLLM)
    tokens.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    made = corpus([{"messages": CHAT}], tokens, max_length=1000)
    assert spoken(made) == [ANSWERS["smollm"]]


def test_thoughts_before_a_tool_call_stay_though_a_template_drops_them_behind_the_answer() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    messages: Turns = [
        {"role": "user", "content": "f(1)?"},
        {"role": "assistant", "content": None, "thinking": "I call f.", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "It is 2."},
    ]
    made = of_rows(GPT_OSS, {"messages": messages})
    first = "<|channel|>analysis<|message|>I call f.<|end|><|start|>assistant to=functions.f<|channel|>commentary json"
    last = "<|channel|>final<|message|>It is 2.<|return|>"
    assert spoken(made) == [[f'{first}<|message|>{{"x": 1}}<|call|>', last]]
    assert "I call f." not in tokens_for(GPT_OSS).apply_chat_template(messages, tokenize=False)


def test_a_template_may_ask_whether_the_content_beside_tool_calls_is_none() -> None:
    template = (
        "{% for m in messages %}{% if m['content'] is none %}[call {{ m['tool_calls'][0]['function']['name'] }}]"
        "{% else %}{{ '[' + m['role'] + '] ' + m['content'] + '[end]' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    messages: Turns = [
        {"role": "user", "content": "f?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "two"},
    ]
    texts = written(template, messages)
    assert texts[-1].text == "[user] f?[end][call f][tool] 2[end][assistant] two[end]"


def test_an_answer_follows_the_question_that_a_template_rewrites_once_it_is_answered() -> None:
    texts = written(MISTRAL, chat("q1", "a1", "q2", "a2"))
    assert [(one.text, one.text[one.answers[0].start :]) for one in texts] == [
        ("<s>[INST] Be brief.\n\nq1[/INST] a1</s>", " a1</s>"),
        ("<s>[INST] q1[/INST] a1</s>[INST] Be brief.\n\nq2[/INST] a2</s>", " a2</s>"),
    ]
    (plain,) = written(MISTRAL, chat("q1", "a1", "q2", "a2", system=""))
    assert [plain.text[answer.start : answer.stop] for answer in plain.answers] == [" a1</s>", " a2</s>"]


def test_a_header_is_not_learnt_where_the_assistant_speaks_first() -> None:
    (text,) = written(SMOLLM, [{"role": "assistant", "content": "hello"}, *chat("q", "a", system="")])
    assert [text.text[answer.start : answer.stop] for answer in text.answers] == ["hello<|im_end|>\n", "a<|im_end|>\n"]


def test_a_chat_without_a_turn_to_learn_is_dropped() -> None:
    made = of_rows(GEMMA_3, {"messages": chat()}, {"messages": chat("q", "a")}, {"messages": chat("q")})
    assert (len(made), made.rows, made.dropped) == (1, 1, 2)


def test_the_roles_are_told_where_the_assistant_has_no_turn_in_any_row() -> None:
    rows = [{"messages": [*chat("q", system=""), {"role": "narrator", "content": "a"}]} for _ in range(2)]
    with pytest.raises(
        UserError,
        match=r"all 2 examples have no turn of the assistant \(the roles are user, narrator\): nothing is left",
    ):
        of_rows(SMOLLM, *rows)
    with pytest.raises(
        UserError, match=r"data.validation_path have no turn of the assistant \(the roles are user, narr.*is held out"
    ):
        of_rows(SMOLLM, {"messages": DIALOGUE}, validation=rows)
    with pytest.raises(UserError, match=r"all 1 examples have an empty completion, or lose it"):
        of_rows(SMOLLM, {"messages": [USER, {**ASSISTANT, "weight": 0}]})


def test_what_a_template_refuses_is_told_with_the_row() -> None:
    with pytest.raises(UserError, match=r"row 1 has messages that the chat template refuses \(Conversation roles must"):
        of_rows(GEMMA_3, {"messages": chat("q", "a")}, {"messages": [*chat("q"), *chat("q", "a", system="")]})
    with pytest.raises(UserError, match=r"refuses \(No user query found in messages.\): mend the row"):
        of_rows(QWEN3_5, {"messages": [{"role": "system", "content": "s"}, {"role": "assistant", "content": "a"}]})


MARKED = (
    "{%- for m in messages -%}{%- if m.role == 'assistant' -%}[a]{% generation %}{{- m.content + '[end]' -}}"
    "{% endgeneration %}{%- else -%}{{- '[u]' + m.content + '[end]' -}}{%- endif -%}{%- endfor -%}"
)


@pytest.mark.parametrize("template", [MARKED, SMOLLM, QWEN3])
def test_turns_of_weight_0_and_of_the_prompt_are_read_and_not_learnt(template: str) -> None:
    turns = chat("q1", "a1", "q2", "a2", "q3", "a3", system="")
    weighted = [turn | {"weight": 0} if turn["content"] == "a2" else turn for turn in turns]
    learnt = [piece for text in spoken(of_rows(template, {"messages": weighted})) for piece in text]
    assert len(learnt) == 2 and "a1" in learnt[0] and "a3" in learnt[1]
    pairs = {"prompt": turns[:3], "completion": turns[3:]}
    learnt = [piece for text in spoken(of_rows(template, pairs)) for piece in text]
    assert len(learnt) == 2 and "a2" in learnt[0] and "a3" in learnt[1]


def test_tools_are_written_by_the_template_whether_given_as_lists_or_as_text() -> None:
    template = "{%- for tool in tools or [] -%}{{- tool.name + '; ' -}}{%- endfor -%}" + SMOLLM
    rows = [{"messages": chat("q", "a"), "tools": tools} for tools in ([{"name": "f"}], '[{"name": "g"}]', None, "")]
    prompts = [text_of(example.prompt) for example in all_of(of_rows(template, *rows))]
    assert [prompt.partition("<")[0] for prompt in prompts] == ["f; ", "g; ", "", ""]
    with pytest.raises(UserError, match=r"row 0 has no list of tools in field 'tools' but \"f\""):
        of_rows(template, {"messages": chat("q", "a"), "tools": "f"})


PARTS = [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "image": None}]


@pytest.mark.parametrize(
    ("template", "end"), [(LLAMA_3, "<|eot_id|>"), (GEMMA_3, "<end_of_turn>\n"), (PARTS_ALONE, "[end]")]
)
def test_text_in_parts_is_the_text_of_its_parts(template: str, end: str) -> None:
    rows = [{"messages": [{"role": "user", "content": c}, {"role": "assistant", "content": c}]} for c in (PARTS, "ab")]
    made = all_of(of_rows(template, *rows))
    assert made[0] == made[1] and text_of(made[0].completion) == f"ab{end}"
    assert "ab" in text_of(made[0].prompt)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {}}],
            'a part that is no text, {"type": "im',
        ),
        ([{"type": "text", "text": None}], "a part that is no text"),
        (7, "no text in 'content' but 7: give text, or leave the row out"),
        ({"text": "a"}, "no text in 'content' but {"),
        (None, "no text in 'content' but null"),
        ("\ud800", "half a surrogate pair"),
    ],
)
def test_content_that_is_no_text_is_refused_with_its_place(content: object, words: str) -> None:
    rows = [{"messages": chat("q", "a")}, {"messages": [*chat("q"), {"role": "assistant", "content": content}]}]
    with pytest.raises(UserError) as error:
        of_rows(SMOLLM, *rows)
    assert f"row 1, turn 3 of 'messages', has {words}" in str(error.value)


USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
DIALOGUE = [USER, ASSISTANT]
SHARE = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    ("row", "columns"),
    [
        ({"prompt": [USER], "completion": [ASSISTANT]}, {}),
        ({"prompt": [USER], "completion": "a"}, {}),
        ({"prompt": "q", "completion": [ASSISTANT]}, {}),
        ({"conversations": SHARE}, {}),
        ({"conversations": SHARE, "system": ""}, {}),
        ({"conversation": DIALOGUE}, {}),
        ({"messages": {"role": ["user", "assistant"], "content": ["q", "a"]}}, {}),
        ({"messages": [{"role": "human", "content": "q"}, {"role": "gpt", "content": "a"}], "prompt": "q"}, {}),
        ({"messages": [USER, {"role": "model", "content": "a"}]}, {}),
        ({"conversations": [SHARE[0], {"from": "Bot", "value": "a"}]}, {}),
        ({"prompt": [USER], "completion": [{"role": "AI", "content": "a"}]}, {}),
        ({"turns": SHARE}, {"messages": "turns"}),
        ({"prompt": [USER], "chosen": [ASSISTANT], "rejected": []}, {"completion": "chosen"}),
        ({"prompt": "q", "chosen": DIALOGUE, "rejected": []}, {"completion": "chosen"}),
        ({"prompt": [USER], "chosen": DIALOGUE, "rejected": []}, {"completion": "chosen"}),
        ({"chosen": DIALOGUE, "rejected": []}, {"messages": "chosen"}),
    ],
)
def test_every_form_of_a_chat_is_learnt_alike(row: dict[str, Any], columns: dict[str, str]) -> None:
    given = of_rows(SMOLLM, row, columns=Columns(**columns))
    assert all_of(given) == all_of(of_rows(SMOLLM, {"messages": DIALOGUE}))


def test_a_system_prompt_and_calls_of_functions_are_read_from_share_gpts_form() -> None:
    call = {"from": "function_call", "value": json.dumps({"name": "f", "arguments": {"x": 1}})}
    row = {"conversations": [SHARE[0], call, {"from": "observation", "value": "2"}, SHARE[1]], "system": "Be brief."}
    made = of_rows(GPT_OSS, row)
    assert '<|message|>{"x": 1}<|call|>' in spoken(made)[0][0]
    assert "<|start|>developer<|message|>Be brief.<|end|>" in text_of(made[0].prompt)
    with pytest.raises(
        UserError, match=r"turn 1 of 'conversations', has no role but .*: give role and content, or from"
    ):
        of_rows(SMOLLM, {"conversations": [{"from": "narrator", "value": "q"}]})
    with pytest.raises(UserError, match=r"has no function call but \"f\(1\)\": give"):
        of_rows(SMOLLM, {"conversations": [SHARE[0], {"from": "function_call", "value": "f(1)"}]})


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, "causal", r"add data.completion=chosen$"),
    (
        {"chosen": DIALOGUE, "rejected": []},
        "causal",
        r"data.messages=chosen if it holds a dialogue in messages, data.tex",
    ),
    (
        {"instruction": "q", "input": "", "output": "a"},
        "causal",
        r"'data.prompt=\"\{instruction\}\\n\{input\}\\n\"' data",
    ),
    ({"prompt": DIALOGUE, "completion": [ASSISTANT]}, "seq2seq", r"has no text in field 'prompt' but \[\{"),
    ({"messages": "hello"}, "causal", r"has no messages in field 'messages' but \"hello\": give a list, as \[\{"),
    ({"messages": {"role": ["user"], "content": []}}, "causal", r"has no messages in field 'messages' but"),
    ({"messages": []}, "causal", r"has no messages in field 'messages' but \[\]"),
    ({"messages": ["hello"]}, "causal", r"has no messages in field 'messages' but \[\"hello\"\]"),
]


@pytest.mark.parametrize(("row", "task", "words"), REFUSED)
def test_rows_of_another_shape_are_refused_with_the_way_on(row: dict[str, Any], task: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        of_rows(SMOLLM, row, task=task)


def test_the_advice_for_instructions_is_a_way_on() -> None:
    columns = Columns(prompt=r"{instruction}\n{input}\n", completion="output")
    made = of_rows(SMOLLM, {"instruction": "Add.", "input": "1 1", "output": "2"}, columns=columns)
    assert text_of(made[0].prompt) == "Add.\n1 1\n"
    with pytest.raises(UserError, match=r"row 0 has no text for .* but null: give text, or leave the row out"):
        of_rows(SMOLLM, {"instruction": "Add.", "input": None, "output": "2"}, columns=columns)
