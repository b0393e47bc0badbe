"""What the encoders of all tasks share: token ids from a tokenizer, their end, and their cut."""

import hashlib
import json
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from transformers import BatchEncoding, PreTrainedTokenizerBase

from deltaw.data.example import Example
from deltaw.errors import UserError

# The settings of a tokenizer's call whose answer `tokens_in` reads.
MARK_SPECIAL: dict[str, Any] = {
    "return_special_tokens_mask": True,
    "return_attention_mask": False,
    "verbose": False,
}


class Encoded(NamedTuple):
    """The examples of a record, none where it has nothing to learn, and how many of them lost tokens."""

    examples: list[Example]
    shortened: int = 0


NOTHING_TO_LEARN = Encoded([])


class Tokens(NamedTuple):
    """The tokens of one text."""

    ids: list[int]
    special: list[int]  # 1 where the tokenizer added the token


def tokens_in(encoding: BatchEncoding) -> list[Tokens]:
    """The tokens of each text, from a tokenizer's answer to a call with `MARK_SPECIAL`."""
    return [Tokens(*columns) for columns in zip(encoding["input_ids"], encoding["special_tokens_mask"], strict=True)]


def with_end(completion: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """A completion that ends with the tokenizer's end of text, once.

    Raises:
        UserError: the tokenizer has no end of text.
    """
    end: int | None = tokenizer.eos_token_id
    if end is None:
        raise UserError(
            f"the tokenizer of {tokenizer.name_or_path} has no eos_token, with which completions end: "
            "name one in its config, or set data.eos=false"
        )
    return completion if completion[-1:] == [end] else [*completion, end]


def without_prefix(backend: Tokenizer) -> Tokenizer | None:
    """A copy that puts no space before a text, as Llama 2's tokenizer does; None if `backend` puts none."""
    state = json.loads(backend.to_str())
    bare = state | {name: _without_prefix(state[name]) for name in ("normalizer", "pre_tokenizer")}
    return None if bare == state else Tokenizer.from_str(json.dumps(bare))


def _without_prefix(step: dict[str, Any] | None) -> dict[str, Any] | None:
    if step is None or step["type"] == "Prepend":
        return None
    for name in ("normalizers", "pretokenizers"):  # of a sequence
        if name in step:
            return step | {name: [one for one in map(_without_prefix, step[name]) if one]}
    if step["type"] == "Metaspace":
        return step | {"prepend_scheme": "never"}
    return step | {"add_prefix_space": False} if "add_prefix_space" in step else step


def start_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that can stand before a text: the tokenizer's end of text, or its beginning, or None."""
    return tokenizer.bos_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id


def empty_text(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What a model reads in place of an empty text, because it needs one token at least."""
    return [start_token(tokenizer) or 0]


def shorten(text: Tokens, limit: int) -> list[int]:
    """At most `limit` tokens: all that the tokenizer added, and the first of the others."""
    if len(text.ids) <= limit:
        return text.ids
    room = limit - sum(text.special)
    kept = []
    for token, added in zip(text.ids, text.special, strict=True):
        room -= not added
        if added or room >= 0:
            kept.append(token)
    return kept


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over everything that decides how a tokenizer cuts text and numbers tokens."""
    if tokenizer.is_fast:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        for state in ("truncation", "padding"):  # what its last call left
            content.pop(state)
    else:
        content = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab(), **tokenizer.init_kwargs}
    of_pairs = [tokenizer.model_input_names, tokenizer.truncation_side]  # whether it gives types, and how it cuts
    parts = [content, tokenizer.special_tokens_map, tokenizer.chat_template, of_pairs]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
