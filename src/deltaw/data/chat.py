"""A chat as its template writes it, and which part of the text the assistant says."""

import re
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from deltaw.errors import UserError

Messages = list[dict[str, Any]]

_MARKS_ANSWERS = re.compile(r"\{%-?\s*generation\s*-?%\}")


class WrittenChat(NamedTuple):
    """A chat as text, and the ranges of characters that the assistant says."""

    text: str
    answers: list[range]


def write_chat(place: str, messages: Messages, tokenizer: PreTrainedTokenizerBase) -> WrittenChat:
    """Write a chat by the tokenizer's template.

    Args:
        place: where the chat stands, as an error names it.
        messages: its turns.
        tokenizer: has the template.

    Raises:
        UserError: there is no template, the template refuses the messages, or it hides where the assistant speaks.
    """
    try:
        template = tokenizer.get_chat_template()
    except ValueError as error:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no chat_template, which messages are written by: "
            "give a base that was tuned for chats, or data with prompt and completion"
        ) from error
    try:
        if _MARKS_ANSWERS.search(template):
            return _write_marked(messages, template, tokenizer)
        return _write_turn_by_turn(place, messages, tokenizer)
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        raise UserError(f"{place} has messages that the chat template refuses ({error}): mend the row") from error


def _write_marked(messages: Messages, template: str, tokenizer: PreTrainedTokenizerBase) -> WrittenChat:
    """Take the answers that the template marks with `{% generation %}`."""
    # `apply_chat_template` gives a mask of tokens, which is wrong after a turn whose last character belongs to no
    # token: it marks all that follows. So take the characters here, and look the tokens up in them.
    without_none = [{key: value for key, value in turn.items() if value is not None} for turn in messages]
    special: dict[str, Any] = tokenizer.special_tokens_map
    rendered: Any = render_jinja_template(
        [without_none], chat_template=template, return_assistant_tokens_mask=True, **special
    )
    texts, spans = rendered
    return WrittenChat(texts[0], [range(first, last) for first, last in spans[0]])


def _write_turn_by_turn(place: str, messages: Messages, tokenizer: PreTrainedTokenizerBase) -> WrittenChat:
    """Take as an answer what a turn of the assistant adds to the turns before it and the cue to answer."""
    chat = _render(messages, False, tokenizer)
    answers = []
    for n, turn in enumerate(messages):
        if turn["role"] != "assistant":
            continue
        cue, answered = _render(messages[:n], True, tokenizer), _render(messages[: n + 1], False, tokenizer)
        if not answered.startswith(cue) or not chat.startswith(answered):
            raise UserError(
                f"{place}: the chat template of {tokenizer.name_or_path} writes turn {n + 1} differently inside the "
                "chat and at its end, so that the assistant's part cannot be found: mark it in the template by "
                "{% generation %}, or give prompt and completion"
            )
        answers.append(range(len(cue), len(answered)))
    return WrittenChat(chat, answers)


def _render(messages: Messages, cue: bool, tokenizer: PreTrainedTokenizerBase) -> str:
    if not messages:
        return ""
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=cue))
