"""What a model reads of one record of a data set, and what it learns."""

from typing import NamedTuple

IGNORED = -100  # the label that cross-entropy leaves out


class Example(NamedTuple):
    """Token ids of one record.

    Attributes:
        prompt: what is read and not learnt; a token of type 1, as BERT has them in the second of two texts, as −1 − id.
        completion: what comes after it; of a classification, the number of the class alone.
        labels: as long as `completion`, and the same, but `IGNORED` where nothing is to be learnt.
    """

    prompt: list[int]
    completion: list[int]
    labels: list[int]
