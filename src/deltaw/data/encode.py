"""The encoder of a task: from the records of a data set to examples, tokenised and cut to the length allowed."""

from transformers import PreTrainedTokenizerBase

from deltaw.data.causal import CausalEncoder
from deltaw.data.classification import Classes, ClassificationEncoder
from deltaw.data.seq2seq import Seq2SeqEncoder

Encoder = CausalEncoder | Seq2SeqEncoder | ClassificationEncoder


def encoder_for(
    task: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    max_completion: int | None,
    eos: bool,
    classes: list[str] | None,
) -> Encoder:
    """The encoder of a task.

    Args:
        task: causal, seq2seq or classification.
        tokenizer: the base's.
        max_length: tokens, at least 2; in seq2seq of a prompt alone.
        max_completion: tokens of a completion in seq2seq; None is `max_length`.
        eos: whether a completion ends with the tokenizer's end of text.
        classes: names of the classes by number, if the data set lists them.
    """
    if task == "causal":
        return CausalEncoder(tokenizer, max_length, eos)
    if task == "seq2seq":
        return Seq2SeqEncoder(tokenizer, max_length, max_completion or max_length, eos)
    return ClassificationEncoder(tokenizer, max_length, Classes(classes))
