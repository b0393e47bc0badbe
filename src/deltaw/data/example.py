"""What a model reads of one record of a data set, and what it learns."""

from typing import NamedTuple

IGNORED = -100  # the label that cross-entropy leaves out


class Example(NamedTuple):
    """Token ids of one record.

    Attributes:
        prompt: tokens that the model reads and does not learn.
        completion: tokens after the prompt; in a classification, the number of the class alone.
        labels: as long as `completion`, and equal to it, but `IGNORED` where nothing is to be learnt.
        token_types: the type of each token of the prompt, 0 or 1 (BERT gives 1 to the second of two texts); empty
            where all are 0.
        signs: +1 or −1 for each shadow of the arm that learns the record, see `deltaw.lora.shadows`; 0 where the arm
            has none.
    """

    prompt: list[int]
    completion: list[int]
    labels: list[int]
    token_types: tuple[int, ...] = ()
    signs: tuple[int, ...] = ()
