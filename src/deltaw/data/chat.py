"""A chat as its template writes it, and which part of the text the assistant says.

Many templates write a turn differently once others follow it: they drop its thoughts, close only the last turn with the
end of text, or move the system prompt into the last question. A model answers the last turn, so each turn of the
assistant is then learnt from a text of its own, in which it is the last.
"""

import re
from bisect import bisect_left
from collections.abc import Mapping
from functools import lru_cache
from itertools import takewhile
from typing import Any, NamedTuple

from jinja2 import TemplateError, UndefinedError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from deltaw.data.messages import Messages
from deltaw.data.record import Chat
from deltaw.errors import UserError

_MARKS_ANSWERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_REFUSALS = (TemplateError, TypeError, KeyError, ValueError, AttributeError)


class WrittenChat(NamedTuple):
    """A text, and the ranges of characters that the assistant says."""

    text: str
    answers: list[range]


def write_chat(place: str, chat: Chat, tokenizer: PreTrainedTokenizerBase) -> list[WrittenChat]:
    """Write a chat by the tokenizer's template: once, or for each turn to learn if the template rewrites earlier turns.

    A template that marks answers with `{% generation %}` writes the chat once.

    Args:
        place: where the chat stands, as an error names it.
        chat: its turns.
        tokenizer: has the template.

    Returns:
        Texts with something to learn: none if no turn is to be learnt.

    Raises:
        UserError: there is no template, the template refuses the messages, or it hides where the assistant speaks.
    """
    try:
        template = tokenizer.get_chat_template(tools=chat.tools)
    except ValueError as error:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat_template, which messages are written by: "
            "give a base that was tuned for chats, or data with prompt and completion"
        ) from error
    if not chat.learnt:
        return []
    writer = _Writer(place, chat, template, tokenizer)
    try:
        if _MARKS_ANSWERS.search(template):
            return [writer.marked()]
        turns = [writer.turn(n) for n in chat.learnt]
    except _REFUSALS as error:
        raise UserError(f"{place} has messages that the chat template refuses ({error}): mend the row") from error
    whole = turns[-1].text
    if all(whole.startswith(turn.text) for turn in turns):
        return [WrittenChat(whole, [answer for turn in turns for answer in turn.answers])]
    return turns


class _Writer:
    """Writes one chat by a template."""

    def __init__(self, place: str, chat: Chat, template: str, tokenizer: PreTrainedTokenizerBase):
        self.place, self.chat, self.template = place, chat, template
        self.name, self.special = tokenizer.name_or_path, tokenizer.special_tokens_map

    def marked(self) -> WrittenChat:
        """Take the answers that the template marks, but for those of turns not to be learnt."""
        # `apply_chat_template` gives a mask of tokens, which is wrong after a turn whose last character belongs to no
        # token: it marks all that follows. So take the characters here, and look the tokens up in them.
        messages, learnt = self.chat.messages, self.chat.learnt
        text, spans = self._render(messages, marks=True)
        if len(learnt) < sum(turn["role"] == "assistant" for turn in messages):
            counts = {at: len(self._render(messages[:at], marks=True)[1]) for n in learnt for at in (n, n + 1)}
            spans = [span for n in learnt for span in spans[counts[n] : counts[n + 1]]]
        return WrittenChat(text, [range(first, last) for first, last in spans])

    def turn(self, n: int) -> WrittenChat:
        """The chat up to turn n; the answer is what this turn adds to the turns before it and the cue to answer."""
        messages = self.chat.messages[:n]
        cue, answered = self._text(messages, cue=True), self._text([*messages, self.chat.messages[n]])
        if messages and answered.startswith(cue):
            return WrittenChat(answered, [range(len(cue), len(answered))])
        # What the template writes before any answer is no part of this one.
        others = [self._text([*messages, {"role": "assistant", "content": letter}]) for letter in "ab"]
        before = _shared_start(answered, *others)
        shared = _shared_start(before, cue) if messages else before
        asked = _shared_start(self._text(messages), cue)
        if len(shared) >= len(asked):  # the cue begins another kind of answer, as one with thoughts
            return WrittenChat(answered, [range(len(shared), len(answered))])
        answer = answered[self._end_of_cue(n, cue, before) :]
        return WrittenChat(cue + answer, [range(len(cue), len(cue + answer))])

    def _end_of_cue(self, n: int, cue: str, before: str) -> int:
        """Where the cue ends in `before`, in which the template writes earlier turns in another way than in the cue."""
        size = bisect_left(range(len(cue)), True, key=lambda size: cue[len(cue) - size - 1 :] not in before)
        end = cue[len(cue) - size :]
        last = str(self.chat.messages[n - 1].get("content") or "").strip()
        if last not in end or end == last:
            raise UserError(
                f"{self.place}: the chat template of {self.name} writes the turns before turn {n + 1} differently with "
                "and without its answer, so that the assistant's part cannot be found: mark it in the template by "
                "{% generation %}, or give prompt and completion"
            )
        return before.rindex(end) + len(end)

    def _text(self, messages: Messages, cue: bool = False) -> str:
        return self._render(messages, cue)[0]

    def _render(self, messages: Messages, cue: bool = False, marks: bool = False) -> tuple[str, list[tuple[int, int]]]:
        return _render(messages, self.template, self.chat.tools, cue, marks, self.special)


def _render(
    messages: Messages, template: str, tools: list[Any] | None, cue: bool, marks: bool, special: Mapping[str, Any]
) -> tuple[str, list[tuple[int, int]]]:
    """The text of messages, and the ranges of characters that the template marks; of no messages, nothing."""
    if not messages:
        return "", []
    as_list = _reads_parts_alone(template)
    given = [_as_parts(turn) if as_list else turn for turn in messages]
    return _rendered(given, template, tools, cue, marks, special)


def _rendered(
    messages: Messages, template: str, tools: list[Any] | None, cue: bool, marks: bool, special: Mapping[str, Any]
) -> tuple[str, list[tuple[int, int]]]:
    without_none = [{key: value for key, value in turn.items() if value is not None} for turn in messages]
    with_content = [turn | {"content": turn.get("content")} for turn in without_none]  # DeepSeek's asks if it is none
    settings = {"tools": tools, "chat_template": template, "add_generation_prompt": cue, **special}
    try:
        rendered: Any = render_jinja_template([without_none], return_assistant_tokens_mask=marks, **settings)
    except UndefinedError:
        rendered = render_jinja_template([with_content], return_assistant_tokens_mask=marks, **settings)
    texts, spans = rendered
    return texts[0], spans[0] if marks else []


@lru_cache
def _reads_parts_alone(template: str) -> bool:
    """Whether a template writes nothing of a content that is text, as those of some multimodal models."""
    turn, special = {"role": "user", "content": "deltaw"}, dict.fromkeys(("bos_token", "eos_token", "pad_token"), "")
    written = []
    for given in (turn, _as_parts(turn)):
        try:
            written.append("deltaw" in _rendered([given], template, None, False, False, special)[0])
        except _REFUSALS:
            written.append(False)
    return written == [False, True]


def _shared_start(*texts: str) -> str:
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in alike)


def _as_parts(turn: dict[str, Any]) -> dict[str, Any]:
    content = turn.get("content")
    return turn if content is None else {**turn, "content": [{"type": "text", "text": content}]}
