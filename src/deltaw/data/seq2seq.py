"""Pairs to examples of task=seq2seq: an encoder reads the prompt, a decoder writes the completion."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from deltaw.data.example import Example
from deltaw.data.record import Pair
from deltaw.data.tokens import MARK_SPECIAL, NOTHING_TO_LEARN, Encoded, Tokens, empty_text, shorten, tokens_in, with_end


@dataclass(frozen=True)
class Seq2SeqEncoder:
    """Makes examples whose prompt and completion have limits of their own.

    A side that is too long loses its end, but keeps the tokens that the tokenizer added.

    Attributes:
        tokenizer: the base's.
        max_length: tokens of a prompt.
        max_completion: tokens of a completion.
        eos: whether a completion ends with the tokenizer's end of text.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    max_completion: int
    eos: bool

    task = "seq2seq"

    def settings(self) -> list[object]:
        """Everything that the examples depend on besides tokenizer and records."""
        return [self.max_length, self.max_completion, self.eos]

    def __call__(self, places: Sequence[str], records: Sequence[Pair]) -> list[Encoded]:
        """An example of each pair; `places` is not used.

        Raises:
            UserError: the tokenizer has no end of text.
        """
        prompts = tokens_in(self.tokenizer([pair.prompt for pair in records], **MARK_SPECIAL))
        completions = tokens_in(self.tokenizer(text_target=[pair.completion for pair in records], **MARK_SPECIAL))
        return [self._example(*sides) for sides in zip(prompts, completions, strict=True)]

    def _example(self, prompt: Tokens, completion: Tokens) -> Encoded:
        if all(completion.special):
            return NOTHING_TO_LEARN
        completion = self._with_end(completion)
        written = shorten(completion, self.max_completion)
        if not written:
            return NOTHING_TO_LEARN
        read = shorten(prompt, self.max_length) or empty_text(self.tokenizer)
        shortened = len(prompt.ids) > self.max_length or len(completion.ids) > self.max_completion
        return Encoded([Example(read, written, written)], int(shortened))

    def _with_end(self, text: Tokens) -> Tokens:
        if not self.eos:
            return text
        ids = with_end(text.ids, self.tokenizer)
        return Tokens(ids, [*text.special, *[1] * (len(ids) - len(text.ids))])
