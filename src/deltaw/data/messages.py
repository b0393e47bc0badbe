"""Turns of a chat, in the forms that people keep them in, made alike: with role and content, as templates take them."""

import json
from typing import Any

from deltaw.errors import UserError

Messages = list[dict[str, Any]]

CHAT_FIELDS = ("messages", "conversations", "conversation")  # where data sets keep the turns of a chat
_ROLES = {  # the names of OpenAI, ShareGPT, and Google (model)
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "ai": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "function_call",
}
_BESIDE_CONTENT = ("tool_calls", "function_call", "reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = ("text", "input_text", "output_text")
_EXAMPLE = '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


def messages_in(place: str, field: str, value: object) -> Messages:
    """The turns in a field: OpenAI's (role, content) or ShareGPT's (from, value), the content as text.

    A content in parts becomes their text. A content may be missing beside tool calls and the like.

    Args:
        place: where the row stands, as an error names it.
        field: name of the field.
        value: its value.

    Raises:
        UserError: it is no list of turns, or a turn has an unknown role, or a content that is no text.
    """
    if isinstance(value, dict):
        value = _turns_of_columns(value)
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise UserError(f"{place} has no messages in field {field!r} but {short(value)}: give a list, as {_EXAMPLE}")
    return [_turn(f"{place}, turn {n} of {field!r},", turn) for n, turn in enumerate(value, 1)]


def tools_in(place: str, value: object) -> list[Any] | None:
    """The tools that a chat may call: a list of JSON schemas, or its JSON text; None where there are none.

    Raises:
        UserError: `value` is something else.
    """
    tools = _json(value) if isinstance(value, str) and value else value
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UserError(f"{place} has no list of tools in field 'tools' but {short(value)}: give JSON schemas, or none")
    return tools


def check_text(place: str, text: str) -> str:
    """`text`, which a tokenizer can read.

    Raises:
        UserError: it has half a surrogate pair.
    """
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise UserError(f"{place} has half a surrogate pair, which is no text: mend the row")
    return text


def short(value: object) -> str:
    """A value as JSON, cut to 60 characters."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _turns_of_columns(columns: dict[str, Any]) -> object:
    """The turns in lists of roles and of contents, which the library datasets makes of some."""
    if not all(isinstance(column, list) for column in columns.values()) or len(set(map(len, columns.values()))) != 1:
        return columns
    return [dict(zip(columns, turn, strict=True)) for turn in zip(*columns.values(), strict=True)]


def _turn(place: str, turn: dict[str, Any]) -> dict[str, Any]:
    name = str(turn.get("role") or turn.get("from"))
    role = _ROLES.get(name.lower(), name)
    if not turn.get("role") and name.lower() not in _ROLES:
        raise UserError(
            f"{place} has no role but {short(turn)}: give role and content, or from (one of {', '.join(_ROLES)}) "
            "and value"
        )
    text = _content(place, turn, "content" if "role" in turn or "content" in turn else "value")
    if role == "function_call":
        return {"role": "assistant", "tool_calls": [{"type": "function", "function": _function(place, text)}]}
    return {key: value for key, value in turn.items() if key not in ("from", "value")} | {"role": role, "content": text}


def _content(place: str, turn: dict[str, Any], key: str) -> str | None:
    value = turn.get(key)
    if value is None and any(turn.get(other) for other in _BESIDE_CONTENT):
        return None
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list):
        raise UserError(f"{place} has no text in {key!r} but {short(value)}: give text, or leave the row out")
    return check_text(place, "".join(_part(place, part) for part in parts))


def _part(place: str, part: object) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and (part.get("type") or "text") in _TEXT_PARTS and isinstance(part.get("text"), str):
        return str(part["text"])
    raise UserError(f"{place} has a part that is no text, {short(part)}: only text is learned; leave the row out")


def _json(text: str) -> Any:
    """What a text holds as JSON; the text itself if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _function(place: str, text: str | None) -> dict[str, Any]:
    call = _json(text or "")
    if not isinstance(call, dict) or "name" not in call:
        raise UserError(f'{place} has no function call but {short(text)}: give {{"name": …, "arguments": …}} as JSON')
    return call
