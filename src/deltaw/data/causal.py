"""Pairs, texts and chats to examples of task=causal: prompt and completion are one sequence."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise, takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from deltaw.data.chat import WrittenChat, write_chat
from deltaw.data.example import IGNORED, Example
from deltaw.data.record import Chat, Pair, Record, Text
from deltaw.data.tokens import (
    MARK_SPECIAL,
    NOTHING_TO_LEARN,
    Encoded,
    Tokens,
    start_token,
    tokens_in,
    with_end,
    without_prefix,
)
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
        """The example of each record; of a chat, one for each turn to learn where its template rewrites earlier turns.

        Args:
            places: where each record stands, as an error names it.
            records: `Pair`, `Text` or `Chat`.

        Raises:
            UserError: the tokenizer lacks what the records need, or the chat template refuses one.
        """
        placed = zip(places, records, strict=True)
        return [one for kind, run in groupby(placed, lambda pair: type(pair[1])) for one in self._encode(kind, [*run])]

    def _encode(self, kind: type[Record], placed: Sequence[tuple[str, Any]]) -> list[Encoded]:
        places, records = zip(*placed, strict=True)
        if kind is Chat:
            return self._chats(places, records)
        return self._texts(records) if kind is Text else self._pairs(records)

    def _pairs(self, pairs: Sequence[Pair]) -> list[Encoded]:
        prompts = self._ids([pair.prompt for pair in pairs], add_special_tokens=True)
        completions = self._completions(pairs, prompts)
        return [
            self._example(prompt, completion) if completion else NOTHING_TO_LEARN
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def _completions(self, pairs: Sequence[Pair], prompts: list[list[int]]) -> list[list[int]]:
        """The ids of completions, with no more space at the beginning than in one text with the prompt."""
        alone = self._ids([pair.completion for pair in pairs], add_special_tokens=False)
        if not self.tokenizer.is_fast or self._bare is None:
            return alone
        marks = [self._added.get(prompt[-1], "") if prompt else "" for prompt in prompts]
        within = self._tokens_within([mark + pair.completion for mark, pair in zip(marks, pairs, strict=True)])
        behind = [ids[bool(mark) :] for mark, (ids, _) in zip(marks, within, strict=True)]
        return [ids if pair.prompt else first for ids, first, pair in zip(behind, alone, pairs, strict=True)]

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
        written = [write_chat(place, chat, self.tokenizer) for place, chat in zip(places, chats, strict=True)]
        texts = iter(self._with_learnt([text for of_chat in written for text in of_chat]))
        return [_joined([self._chat(*next(texts)) for _ in of_chat]) for of_chat in written]

    def _with_learnt(self, texts: Sequence[WrittenChat]) -> list[tuple[list[int], list[bool]]]:
        """The tokens of each text, and which of them are learnt: those of the assistant.

        A token with characters of two speakers is split, because a model that answers reads the cue by itself.
        """
        whole = self._tokens([text.text for text in texts])
        cuts = [
            [0, *_edges_within_tokens(text, spans), len(text.text)]
            for text, (_, spans) in zip(texts, whole, strict=True)
        ]
        cut_texts = [(text.text, cut) for text, cut in zip(texts, cuts, strict=True) if len(cut) > 2]
        first = iter(self._tokens([text[: cut[1]] for text, cut in cut_texts]))
        later = iter(self._tokens_within([text[i:j] for text, cut in cut_texts for i, j in pairwise(cut[1:])]))
        out = []
        for text, (ids, spans), cut in zip(texts, whole, cuts, strict=True):
            starts = spans[:, 0]
            if len(cut) > 2:
                pieces = [next(first), *(next(later) for _ in pairwise(cut[1:]))]
                ids = [token for piece, _ in pieces for token in piece]
                starts = np.concatenate([at + places[:, 0] for at, (_, places) in zip(cut, pieces, strict=False)])
            learnt = np.zeros(len(ids), bool)
            for answer in text.answers:
                learnt |= (answer.start <= starts) & (starts < answer.stop)
            out.append((ids, learnt.tolist()))
        return out

    def _tokens(self, texts: list[str]) -> list[tuple[list[int], NDArray[np.int64]]]:
        """The ids of each text, and where the characters of each token begin and end: (tokens, 2)."""
        return _encode_batch(self._backend, texts)

    def _tokens_within(self, texts: list[str]) -> list[tuple[list[int], NDArray[np.int64]]]:
        """As `_tokens`, of texts that follow others without a gap: no space is put before them."""
        usual = self._tokens(texts)
        if self._bare is None:
            return usual
        out = []
        for (bare, bare_spans), (ids, spans) in zip(_encode_batch(self._bare, texts), usual, strict=True):
            i, j = self._first_added(bare), self._first_added(ids)  # behind it, a space stands in the whole text too
            out.append((bare[:i] + ids[j:], np.concatenate([bare_spans[:i], spans[j:]])))
        return out

    def _first_added(self, ids: list[int]) -> int:
        return next((n for n, token in enumerate(ids) if token in self._added), len(ids))

    @cached_property
    def _bare(self) -> Tokenizer | None:
        return without_prefix(self._backend)

    @cached_property
    def _added(self) -> dict[int, str]:
        return {number: token.content for number, token in self._backend.get_added_tokens_decoder().items()}

    @cached_property
    def _backend(self) -> Tokenizer:
        """The tokenizer, but white space belongs to the place of the token that holds it (GPT-2's leaves it out)."""
        if not self.tokenizer.is_fast:
            raise UserError(
                f"the tokenizer of {self.tokenizer.name_or_path} does not tell where its tokens stand in the text, "
                "which messages need: give a base with a tokenizer.json, or data with prompt and completion"
            )
        backend = Tokenizer.from_str(self.tokenizer.backend_tokenizer.to_str())
        backend.post_processor = None
        backend.no_truncation()
        backend.no_padding()
        return backend

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
        return Encoded([Example(prompt, completion, labels)], int(shortened))


def _encode_batch(backend: Tokenizer, texts: list[str]) -> list[tuple[list[int], NDArray[np.int64]]]:
    encodings = backend.encode_batch(texts, add_special_tokens=False)
    return [(one.ids, np.array(one.offsets, np.int64).reshape(-1, 2)) for one in encodings]


def _edges_within_tokens(text: WrittenChat, spans: NDArray[np.int64]) -> list[int]:
    """Where an answer begins or ends inside a token."""
    edges = np.unique([edge for answer in text.answers for edge in (answer.start, answer.stop)])
    inner: list[int] = edges[~np.isin(edges, spans) & (edges > 0) & (edges < len(text.text))].tolist()
    return inner


def _joined(turns: Sequence[Encoded]) -> Encoded:
    return Encoded([example for turn in turns for example in turn.examples], sum(turn.shortened for turn in turns))
