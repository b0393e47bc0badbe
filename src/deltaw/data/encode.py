"""Records to examples, task by task: tokenised, and cut to the length that is allowed."""

import hashlib
import json
import re
from collections.abc import Sequence
from itertools import chain, takewhile
from typing import Any, NamedTuple

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from deltaw.data.example import IGNORED, Example
from deltaw.data.record import Chat, Labelled, Pair, Record, Text
from deltaw.errors import UserError

_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")  # a template that tells itself which tokens are the assistant's
CLASSES = 10_000  # a larger number is no class but something else


class Encoded(NamedTuple):
    """An example, or None where the record has nothing to learn, and whether it lost tokens."""

    example: Example | None
    shortened: bool = False


class _Masked(NamedTuple):
    ids: list[int]
    special: list[int]  # 1 where the tokenizer added the token


class Encoder:
    """What a tokenizer makes of the records of a task. A record without anything to learn is dropped.

    - causal: prompt and completion share `max_length`. A long prompt loses its beginning, then a completion its end.
      Of a chat all turns of the assistant are learnt, with the end that the template gives them; of a text all. A
      model writes nothing at the first place: an empty prompt becomes the tokenizer's end of text, or its beginning,
      or where it has neither the first token.
    - seq2seq: the prompt loses its end beyond `max_length`, the completion beyond `max_completion`; the tokens that
      the tokenizer adds stay.
    - classification: what the tokenizer makes of one text or two, with its token types, cut as it cuts to `max_length`
      (of two texts the longer). The completion is the number of the class. Names are numbered in sorted order.

    Args:
        tokenizer: of the base.
        task: causal, seq2seq or classification.
        max_length: tokens, at least 2.
        max_completion: tokens of a completion in seq2seq; None is `max_length`.
        eos: whether a completion ends with the tokenizer's end of text.
        classes: names of the classes by number, where the data set knows them.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        task: str,
        max_length: int,
        max_completion: int | None,
        eos: bool,
        classes: list[str] | None,
    ):
        self.tokenizer, self.task, self.max_length = tokenizer, task, max_length
        self.max_completion, self.eos, self.classes = max_completion or max_length, eos, classes
        self.end: int | None = tokenizer.eos_token_id
        self.starts = [token for token in (self.end, tokenizer.bos_token_id) if token is not None]
        self._seen: dict[int | str, int] = {}  # labels of the records so far; names get numbers as they appear

    def settings(self) -> dict[str, Any]:
        """All that the examples depend on beside the records."""
        limits = {"max_length": self.max_length, "max_completion": self.max_completion, "eos": self.eos}
        return {"task": self.task, **limits, "classes": self.classes, "tokenizer": _content_of(self.tokenizer)}

    def __call__(self, places: list[str], records: Sequence[Record]) -> list[Encoded]:
        """What becomes of records of one kind.

        Args:
            places: where each stands, as an error names it.
            records: all of the same type.

        Raises:
            UserError: the tokenizer lacks what they need, or a record cannot be encoded.
        """
        if isinstance(records[0], Labelled):
            return self._labelled(places, records)  # type: ignore[arg-type]
        if isinstance(records[0], Chat):
            return self._chats(places, records)  # type: ignore[arg-type]
        if isinstance(records[0], Text):
            return [self._text(masked) for masked in self._masked(text=[record.text for record in records])]  # type: ignore[union-attr]
        return self._seq2seq(records) if self.task == "seq2seq" else self._pairs(records)  # type: ignore[arg-type]

    def labels(self) -> list[str]:
        """Names of the classes of all records so far, in the order of their numbers; none of another task."""
        if self.classes is not None:
            return self.classes
        if any(isinstance(label, str) for label in self._seen):
            return sorted(map(str, self._seen))
        return [str(number) for number in range(max(map(int, self._seen), default=-1) + 1)]

    def numbers(self) -> list[int]:
        """The final number of every class by the one that its examples were given."""
        names = self.labels()
        if any(isinstance(label, str) for label in self._seen):
            return [names.index(str(name)) for name in self._seen]
        return list(range(len(names)))

    def _pairs(self, pairs: list[Pair]) -> list[Encoded]:
        prompts = self._ids([pair.prompt for pair in pairs], True)
        completions = self._ids([pair.completion for pair in pairs], False)
        return [
            self._cut(prompt, ended, ended) if completion else Encoded(None)
            for prompt, completion in zip(prompts, completions, strict=True)
            for ended in [self._ended(completion)]
        ]

    def _text(self, masked: _Masked) -> Encoded:
        start = len(list(takewhile(bool, masked.special)))
        if all(masked.special):
            return Encoded(None)
        completion = self._ended(masked.ids[start:])
        return self._cut(masked.ids[:start], completion, completion)

    def _cut(self, prompt: list[int], completion: list[int], labels: list[int]) -> Encoded:
        """The causal example of whole sequences."""
        if not prompt and self.starts:
            prompt = self.starts[:1]
        elif not prompt:
            prompt, completion, labels = completion[:1], completion[1:], labels[1:]
        room = self.max_length - 1
        example = Example(prompt[-max(1, self.max_length - len(completion)) :], completion[:room], labels[:room])
        learns = any(label != IGNORED for label in example.labels)
        return Encoded(example if learns else None, learns and len(prompt) + len(completion) > self.max_length)

    def _seq2seq(self, pairs: list[Pair]) -> list[Encoded]:
        prompts = self._masked(text=[pair.prompt for pair in pairs])
        completions = self._masked(text_target=[pair.completion for pair in pairs])
        encoded = []
        for prompt, (ids, special) in zip(prompts, completions, strict=True):
            ended = self._ended(ids)
            whole = _Masked(ended, [*special, *[1] * (len(ended) - len(ids))])
            completion = _without_end(whole, self.max_completion)
            short = len(prompt.ids) > self.max_length or len(ended) > self.max_completion
            read = self._read(prompt)
            learns = not all(special) and bool(completion)
            encoded.append(Encoded(Example(read, completion, completion), short) if learns else Encoded(None))
        return encoded

    def _labelled(self, places: list[str], records: list[Labelled]) -> list[Encoded]:
        texts = [list(column) for column in zip(*(record.texts for record in records), strict=True)]
        whole = cut = self._typed(texts)
        if max(map(len, whole)) > self.max_length:
            least = self.tokenizer.num_special_tokens_to_add(pair=len(texts) == 2)  # below it, some cut nothing at all
            cut = self._typed(texts, truncation=True, max_length=max(self.max_length, least))
        encoded = []
        for place, record, ids, before in zip(places, records, cut, whole, strict=True):
            number = [self._number(place, record.label)]
            encoded.append(Encoded(Example(ids or self._nothing(), number, number), len(before) > self.max_length))
        return encoded

    def _typed(self, texts: list[list[str]], **cut: Any) -> list[list[int]]:
        """Token ids of one column of texts, or of two that belong together; those of type 1 as −1 − id."""
        out = self.tokenizer(*texts, return_attention_mask=False, verbose=False, **cut)
        ids: list[list[int]] = out["input_ids"]
        if "token_type_ids" not in out:
            return ids
        types: list[list[int]] = out["token_type_ids"]
        if odd := set(chain(*types)) - {0, 1}:
            raise UserError(
                f"the tokenizer of {self.tokenizer.name_or_path} gives tokens the types {sorted(odd)} beside 0 and 1, "
                "which are not kept: leave token_type_ids out of model_input_names in its config to go without"
            )
        both = zip(ids, types, strict=True)
        return [[-1 - token if second else token for token, second in zip(*row, strict=True)] for row in both]

    def _read(self, text: _Masked) -> list[int]:
        """A text without its end."""
        return _without_end(text, self.max_length) or self._nothing()

    def _nothing(self) -> list[int]:
        """What stands for an empty text: a model needs one token at least."""
        return [*self.starts, 0][:1]

    def _number(self, place: str, label: int | str) -> int:
        if self.classes is not None:
            if label in self.classes:
                return self.classes.index(str(label))
            if isinstance(label, str) or label >= len(self.classes):
                raise UserError(f"{place} has the label {label}, and its data set knows {self.classes} alone")
            return label
        if self._seen and type(label) is not type(next(iter(self._seen))):
            raise UserError(
                f"{place} has the label {label!r}, and labels before it were as {next(iter(self._seen))!r}: "
                "give numbers or names in all rows"
            )
        if isinstance(label, int) and label >= CLASSES:
            raise UserError(f"{place} has the label {label}, out of the range of classes, 0 to {CLASSES - 1}")
        number = self._seen.setdefault(label, len(self._seen))
        return label if isinstance(label, int) else number

    def _chats(self, places: list[str], chats: list[Chat]) -> list[Encoded]:
        written = [self._written(place, chat.messages) for place, chat in zip(places, chats, strict=True)]
        if not self.tokenizer.is_fast:
            raise UserError(
                f"the tokenizer of {self.tokenizer.name_or_path} does not tell where its tokens stand in the text, "
                "which messages need: give a base with a tokenizer.json, or data with prompt and completion"
            )
        texts = [text for text, _ in written]
        out = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return [
            self._turns(ids, [any(first <= start < last for first, last in spans) for start, _ in offsets])
            for ids, offsets, (_, spans) in zip(out["input_ids"], out["offset_mapping"], written, strict=True)
        ]

    def _turns(self, ids: list[int], learnt: list[bool]) -> Encoded:
        if not any(learnt):
            return Encoded(None)
        first, last = learnt.index(True), len(learnt) - learnt[::-1].index(True)
        completion = ids[first:last]  # what stands after the last turn of the assistant teaches nothing
        labels = [token if own else IGNORED for token, own in zip(completion, learnt[first:last], strict=True)]
        return self._cut(ids[:first], completion, labels)

    def _written(self, place: str, messages: list[dict[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
        """A chat as the template writes it, and from which to before which character the assistant speaks."""
        try:
            template = self.tokenizer.get_chat_template()
        except ValueError as error:
            raise UserError(
                f"the tokenizer of {self.tokenizer.name_or_path} has no chat_template, which messages are written by: "
                "give a base that was tuned for chats, or data with prompt and completion"
            ) from error
        try:
            return self._marked(messages, template) if _MARKED.search(template) else self._compared(place, messages)
        except (TemplateError, TypeError, KeyError, ValueError) as error:
            raise UserError(f"{place} has messages that the chat template refuses ({error}): mend the row") from error

    def _marked(self, messages: list[dict[str, Any]], template: str) -> tuple[str, list[tuple[int, int]]]:
        # `apply_chat_template` counts all that follows as the assistant's where a turn ends with a character that is
        # part of no token; so characters are taken here, and tokens looked up in them.
        given = [{key: value for key, value in turn.items() if value is not None} for turn in messages]
        special: dict[str, Any] = self.tokenizer.special_tokens_map
        rendered: Any = render_jinja_template(
            [given], chat_template=template, return_assistant_tokens_mask=True, **special
        )
        texts, spans = rendered
        return texts[0], [(first, last) for first, last in spans[0]]

    def _compared(self, place: str, messages: list[dict[str, Any]]) -> tuple[str, list[tuple[int, int]]]:
        """A turn of the assistant is what it adds to the turns before it and the cue to answer."""
        whole = self._rendered(messages, False)
        spans = []
        for n, turn in enumerate(messages):
            if turn["role"] != "assistant":
                continue
            cue, answered = self._rendered(messages[:n], True), self._rendered(messages[: n + 1], False)
            if not answered.startswith(cue) or not whole.startswith(answered):
                raise UserError(
                    f"{place}: the chat template of {self.tokenizer.name_or_path} writes turn {n + 1} otherwise as "
                    "part of the whole chat than by itself, so that what the assistant says cannot be told: mark it "
                    "in the template by {% generation %}, or give prompt and completion"
                )
            spans.append((len(cue), len(answered)))
        return whole, spans

    def _rendered(self, messages: list[dict[str, Any]], cue: bool) -> str:
        if not messages:
            return ""
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=cue))

    def _ended(self, completion: list[int]) -> list[int]:
        if not self.eos:
            return completion
        if self.end is None:
            raise UserError(
                f"the tokenizer of {self.tokenizer.name_or_path} has no eos_token, with which completions end: "
                "name one in its config, or set data.eos=false"
            )
        return completion if completion[-1:] == [self.end] else [*completion, self.end]

    def _ids(self, texts: list[str], special: bool) -> list[list[int]]:
        out = self.tokenizer(texts, add_special_tokens=special, return_attention_mask=False, verbose=False)
        ids: list[list[int]] = out["input_ids"]
        return ids

    def _masked(self, **texts: list[str]) -> list[_Masked]:
        out = self.tokenizer(**texts, return_special_tokens_mask=True, return_attention_mask=False, verbose=False)
        return [_Masked(*both) for both in zip(out["input_ids"], out["special_tokens_mask"], strict=True)]


def _without_end(text: _Masked, limit: int) -> list[int]:
    """At most `limit` tokens: those that the tokenizer added, and the first of the others."""
    if len(text.ids) <= limit:
        return text.ids
    room = limit - sum(text.special)
    kept = []
    for token, added in zip(text.ids, text.special, strict=True):
        room -= not added
        if added or room >= 0:
            kept.append(token)
    return kept


def _content_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over what decides how a tokenizer cuts and numbers."""
    if tokenizer.is_fast:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        for state in ("truncation", "padding"):  # of its last call
            content.pop(state)
    else:
        content = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab(), **tokenizer.init_kwargs}
    pairs = [tokenizer.model_input_names, tokenizer.truncation_side]  # of a classification
    parts = [content, tokenizer.special_tokens_map, tokenizer.chat_template, pairs]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
