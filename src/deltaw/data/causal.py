"""Pairs, texts and chats to examples of task=causal: prompt and completion are one sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from transformers import PreTrainedTokenizerBase

from deltaw.data.chat import write_chat
from deltaw.data.example import IGNORED, Example
from deltaw.data.record import Chat, Pair, Text
from deltaw.data.tokens import MARK_SPECIAL, NOTHING_TO_LEARN, Encoded, Tokens, start_token, tokens_in, with_end
from deltaw.errors import UserError


@dataclass(frozen=True)
class CausalEncoder:
    """Makes examples whose prompt and completion share `max_length` tokens.

    A sequence that is too long loses the beginning of its prompt, all but the last token, then the end of its
    completion. A text is all completion; of a chat, the turns of the assistant are learnt, with the end that the
    template gives them. A model predicts nothing at the first place: an empty prompt becomes the tokenizer's end of
    text, or its beginning, or where it has neither the first token of the completion.

    Attributes:
        tokenizer: the base's.
        max_length: tokens, at least 2.
        eos: whether a completion ends with the tokenizer's end of text; a chat follows its template instead.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    eos: bool

    task = "causal"

    def settings(self) -> list[object]:
        """Everything that the examples depend on besides tokenizer and records."""
        return [self.max_length, self.eos]

    def __call__(self, places: Sequence[str], records: Sequence[Any]) -> list[Encoded]:
        """An example of each record.

        Args:
            places: where each record stands, as an error names it.
            records: all `Pair`, all `Text` or all `Chat`.

        Raises:
            UserError: the tokenizer lacks what the records need, or the chat template refuses one.
        """
        if isinstance(records[0], Chat):
            return self._chats(places, records)
        return self._texts(records) if isinstance(records[0], Text) else self._pairs(records)

    def _pairs(self, pairs: Sequence[Pair]) -> list[Encoded]:
        prompts = self._ids([pair.prompt for pair in pairs], add_special_tokens=True)
        completions = self._ids([pair.completion for pair in pairs], add_special_tokens=False)
        return [
            self._example(prompt, completion) if completion else NOTHING_TO_LEARN
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def _ids(self, texts: list[str], add_special_tokens: bool) -> list[list[int]]:
        out = self.tokenizer(texts, add_special_tokens=add_special_tokens, return_attention_mask=False, verbose=False)
        ids: list[list[int]] = out["input_ids"]
        return ids

    def _texts(self, texts: Sequence[Text]) -> list[Encoded]:
        encoding = self.tokenizer([text.text for text in texts], **MARK_SPECIAL)
        return [self._text(tokens) for tokens in tokens_in(encoding)]

    def _text(self, tokens: Tokens) -> Encoded:
        if all(tokens.special):
            return NOTHING_TO_LEARN
        start = len(list(takewhile(bool, tokens.special)))  # before the text's own first token
        return self._example(tokens.ids[:start], tokens.ids[start:])

    def _example(self, prompt: list[int], completion: list[int]) -> Encoded:
        completion = with_end(completion, self.tokenizer) if self.eos else completion
        return self._cut(prompt, completion, completion)

    def _chats(self, places: Sequence[str], chats: Sequence[Chat]) -> list[Encoded]:
        written = [write_chat(place, chat.messages, self.tokenizer) for place, chat in zip(places, chats, strict=True)]
        if not self.tokenizer.is_fast:
            raise UserError(
                f"the tokenizer of {self.tokenizer.name_or_path} does not tell where its tokens stand in the text, "
                "which messages need: give a base with a tokenizer.json, or data with prompt and completion"
            )
        out = self.tokenizer(
            [chat.text for chat in written], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        return [
            self._chat(ids, [any(start in answer for answer in chat.answers) for start, _ in offsets])
            for ids, offsets, chat in zip(out["input_ids"], out["offset_mapping"], written, strict=True)
        ]

    def _chat(self, ids: list[int], learnt: list[bool]) -> Encoded:
        if not any(learnt):
            return NOTHING_TO_LEARN
        first, last = learnt.index(True), len(learnt) - learnt[::-1].index(True)
        completion = ids[first:last]  # what stands after the last turn of the assistant teaches nothing
        labels = [token if learns else IGNORED for token, learns in zip(completion, learnt[first:last], strict=True)]
        return self._cut(ids[:first], completion, labels)

    def _cut(self, prompt: list[int], completion: list[int], labels: list[int]) -> Encoded:
        start = start_token(self.tokenizer)
        if not prompt and start is not None:
            prompt = [start]
        elif not prompt:
            prompt, completion, labels = completion[:1], completion[1:], labels[1:]
        shortened = len(prompt) + len(completion) > self.max_length
        prompt = prompt[-max(1, self.max_length - len(completion)) :]
        completion, labels = completion[: self.max_length - 1], labels[: self.max_length - 1]
        if all(label == IGNORED for label in labels):
            return NOTHING_TO_LEARN
        return Encoded(Example(prompt, completion, labels), shortened)
