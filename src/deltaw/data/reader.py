"""From a row to a record, by the task and the names of the row's fields."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

from deltaw.data.messages import CHAT_FIELDS, Messages, check_text, messages_in, short, tools_in
from deltaw.data.record import Chat, Labelled, Pair, Record, Row, Text
from deltaw.errors import UserError

_FIELDS: dict[type[Record], tuple[str, ...]] = {
    Pair: ("prompt", "completion"),
    Chat: ("messages",),
    Text: ("text",),
    Labelled: ("text", "label"),
}
_KINDS: dict[str, tuple[type[Record], ...]] = {
    "causal": (Pair, Chat, Text),
    "seq2seq": (Pair,),
    "classification": (Labelled,),
}
_BESIDE_MESSAGES = ("system", "tools")  # a chat's system prompt (ShareGPT), and the tools that it may call (TRL)


@dataclass(frozen=True)
class Columns:
    """Names of the fields to read; None is the usual name, which is the attribute's own.

    All but `messages` and `label` take a template in place of a name, as "{question} | {table[header]}". `text` takes
    two names or templates for a classification of pairs.
    """

    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    text: str | Sequence[str] | None = None
    label: str | None = None

    def names_for(self, field: str) -> tuple[str, ...]:
        """The name or template of a field; `text` may have two."""
        names = getattr(self, field) or field
        return (names,) if isinstance(names, str) else tuple(names)


class Reader:
    """Reads rows as records of one kind, which follows from the task, the columns set, and the fields of the first row.

    Args:
        columns: names of the fields.
        task: causal, seq2seq or classification.
        group: the field whose value `group_of` gives; None for none.
        fields: the fields of the first row.
        place: where that row stands.

    Attributes:
        kind: of the records; in task=causal, a `Pair` of messages becomes a `Chat`.

    Raises:
        UserError: `fields` lacks what the task reads, or the group.
    """

    def __init__(self, columns: Columns, task: str, group: str | None, fields: Iterable[str], place: str):
        self.task, self.group, present = task, group, sorted(fields)
        kinds = _KINDS[task]
        named = [kind for kind in kinds if any(getattr(columns, field) for field in _FIELDS[kind])]
        self.columns = _with_messages(columns, present)
        readable = [kind for kind in named or kinds if set(self._fields_of(kind)) <= set(present)]
        if not readable:
            wanted = " or ".join(" and ".join(map(repr, self._fields_of(kind))) for kind in named or kinds)
            raise UserError(
                f"{place} has the fields {present}, and task={task} reads {wanted}: {_advice(task, present)}"
            )
        if group and group not in present:
            raise UserError(f"{place} has the fields {present} and none for data.group={group}: give one of them")
        self.kind = readable[0]
        self._beside = [name for name in _BESIDE_MESSAGES if self._reads_messages() and name in present]

    def names(self) -> list[str]:
        """The fields of a row that are read."""
        grouped = [self.group] if self.group else []
        return list(dict.fromkeys([*self._fields_of(self.kind), *self._beside, *grouped]))

    def _fields_of(self, kind: type[Record]) -> list[str]:
        names = [name for field in _FIELDS[kind] for name in self.columns.names_for(field)]
        return list(dict.fromkeys(field for name in names for field in _fields_in(name)))

    def _reads_messages(self) -> bool:
        return self.kind is Chat or (self.kind is Pair and self.task == "causal")

    def __call__(self, place: str, row: Row) -> Record:
        """The record in a row.

        Raises:
            UserError: a field is missing or has a wrong type; the message begins with `place`.
        """
        if self.kind is Chat:
            (name,) = self.columns.names_for("messages")
            return _chat(place, row, messages_in(place, name, row.get(name)))
        if self.kind is Pair:
            return self._pair(place, row, *self.columns.names_for("prompt"), *self.columns.names_for("completion"))
        texts = tuple(_text(place, row, name) for name in self.columns.names_for("text"))
        if self.kind is Text:
            return Text(texts[0])
        return Labelled(texts, _label(place, row, *self.columns.names_for("label")))

    def _pair(self, place: str, row: Row, prompt: str, completion: str) -> Pair | Chat:
        if not self._reads_messages() or not any(isinstance(row.get(name), list) for name in (prompt, completion)):
            return Pair(_text(place, row, prompt), _text(place, row, completion))
        asked, answer = _turns(place, row, prompt, "user"), _turns(place, row, completion, "assistant")
        if answer[0]["role"] not in ("system", "user"):
            return _chat(place, row, asked + answer, first=len(asked))
        # Preference data may repeat the dialogue in both sides: the completion is what follows its last question.
        return _chat(place, row, answer, first=max(n for n, turn in enumerate(answer) if turn["role"] != "assistant"))

    def group_of(self, place: str, row: Row) -> str | None:
        """The value of `group` in a row, as JSON; None without a group.

        Raises:
            UserError: the row has no value.
        """
        if self.group is None:
            return None
        if row.get(self.group) is None:
            raise UserError(f"{place} has no value in data.group={self.group}: give one, or leave the row out")
        return json.dumps(row[self.group], sort_keys=True, default=str)


def _with_messages(columns: Columns, present: Sequence[str]) -> Columns:
    """The columns with the name that the messages of the first row have."""
    usual = [name for name in CHAT_FIELDS if name in present]
    return columns if columns.messages or not usual else replace(columns, messages=usual[0])


def _advice(task: str, present: Sequence[str]) -> str:
    """What to set so that rows with these fields can be read."""
    if task != "classification" and {"instruction", "output"} <= set(present):  # Alpaca's
        prompt = r"{instruction}\n{input}\n" if "input" in present else r"{instruction}\n"
        return f"for these fields add 'data.prompt=\"{prompt}\"' data.completion=output"
    if task != "classification" and "chosen" in present:  # a preference
        whole = "data.messages=chosen if it holds a dialogue in messages, data.text=chosen if it holds one in text"
        asked = (
            "data.completion=chosen" if "prompt" in present else f"data.completion=chosen data.prompt=FIELD; or {whole}"
        )
        return f"to learn the chosen side, add {asked}"
    settings = sorted({f"data.{field}" for kind in _KINDS[task] for field in _FIELDS[kind]})
    return f"set {', '.join(settings)} to the names of yours"


def _fields_in(name: str) -> list[str]:
    """The field of a name, or the fields of a template."""
    if "{" not in name:
        return [name]
    try:
        return [part.split(".")[0].split("[")[0] for _, part, _, _ in Formatter().parse(name) if part is not None]
    except ValueError as error:
        raise UserError(f"{name!r} is no template ({error}): write fields as {{name}}") from error


class _Template(Formatter):
    """Like `str.format`, but a list becomes its items with commas between them, and null and objects are refused."""

    def format_field(self, value: Any, format_spec: str) -> str:
        items = value if isinstance(value, list) else [value]
        if any(item is None or isinstance(item, dict | list) for item in items):
            raise ValueError(short(value))
        text: str = super().format_field(", ".join(map(str, items)) if isinstance(value, list) else value, format_spec)
        return text


def _text(place: str, row: Row, name: str) -> str:
    try:
        # a command line holds no line break, so that \\n stands for one
        value = _Template().vformat(name.replace("\\n", "\n"), (), row) if "{" in name else row[name]
    except ValueError as error:
        raise UserError(f"{place} has no text for {name!r} but {error}: give text, or leave the row out") from error
    except (LookupError, AttributeError, TypeError) as error:
        raise UserError(f"{place} has no {name!r} (it has {sorted(row)})") from error
    if not isinstance(value, str):
        number = f", or name the field as the template '{{{name}}}'" if isinstance(value, int | float) else ""
        raise UserError(
            f"{place} has no text in field {name!r} but {short(value)}: give text, or leave the row out{number}"
        )
    return check_text(f"{place}, field {name!r},", value)


def _turns(place: str, row: Row, name: str, role: str) -> Messages:
    """The messages in a field, or its text as the one turn of `role`."""
    if isinstance(row.get(name), list):
        return messages_in(place, name, row[name])
    return [{"role": role, "content": _text(place, row, name)}]


def _chat(place: str, row: Row, messages: Messages, first: int = 0) -> Chat:
    """A chat whose assistant is learnt from turn `first` on, but for turns of weight 0 (OpenAI's)."""
    system = row.get("system")
    if isinstance(system, str) and system and messages[0]["role"] != "system":
        messages, first = [{"role": "system", "content": system}, *messages], first + 1
    answers = [n for n, turn in enumerate(messages) if turn["role"] == "assistant" and turn.get("weight") != 0]
    return Chat(messages, tuple(n for n in answers if n >= first), tools_in(place, row.get("tools")))


def _label(place: str, row: Row, name: str) -> int | str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UserError(f"{place} has no label in field {name!r} but {short(value)}: give a whole number or a name")
    if isinstance(value, int) and value < 0:
        raise UserError(
            f"{place} has the label {value}, out of the range that begins with 0: "
            "leave the row out if it has no label, or take another split"
        )
    return value
