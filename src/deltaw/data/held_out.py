"""Which examples are learnt, which validate, and which are set aside to judge by: the same in every run."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deltaw.data.corpus import Corpus
from deltaw.data.order import permutation
from deltaw.errors import UserError

JUDGED = 512  # examples to judge by, unless told


class Split(NamedTuple):
    """Numbers of examples of a corpus. Examples of one group are in one of the three, or in none."""

    learnt: NDArray[np.int64]
    validation: NDArray[np.int64]
    judged: NDArray[np.int64]
    left_out: int  # examples to learn that are not learnt, because others of their group are held out


def held_out(corpus: Corpus, validation: int, judged: int | None) -> Split:
    """Split a corpus. Which examples validate does not depend on `judged`.

    Groups are taken in a random order until there are enough examples; the last group may have more. If the corpus has
    examples of a validation file, they alone are held out; a file with fewer than `validation` gives all.

    Args:
        corpus: all examples, with their groups.
        validation: number of examples to validate on.
        judged: number of examples to judge by; None for 512 or, if these are fewer, for a tenth of all, or for what
            validation leaves of a validation file. Then it is none where nothing would be left to learn.

    Raises:
        UserError: there are not enough examples, or nothing is left to learn.
    """
    own = np.arange(len(corpus) - corpus.validation)
    pool = np.arange(len(own), len(corpus)) if corpus.validation else own
    groups = corpus.groups
    drawn = pool[_shuffled_by_group(groups[pool])]
    chosen = drawn[:validation]
    rest = drawn[~np.isin(groups[drawn], groups[chosen])]
    spare = len(rest) if corpus.validation else len(pool) // 10
    set_aside = rest[: min(JUDGED, spare) if judged is None else judged]
    held = np.concatenate([chosen, set_aside])
    learnt = own[~np.isin(groups[own], groups[held])]
    if judged is None and not len(learnt):
        return held_out(corpus, validation, 0)
    if len(set_aside) < (judged or 0) or not len(learnt) or (len(chosen) < validation and not corpus.validation):
        raise UserError(_refusal(corpus, pool, validation, judged or 0))
    return Split(learnt, chosen, set_aside, len(own) - len(learnt) - len(np.intersect1d(own, held)))


def _shuffled_by_group(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """An order of examples in which groups follow one another at random, each as a whole."""
    names, numbers = np.unique(groups, return_inverse=True)
    place = np.argsort(permutation(len(names), 0, -2))
    return np.argsort(place[numbers], kind="stable")


def _refusal(corpus: Corpus, pool: NDArray[np.int64], validation: int, judged: int) -> str:
    count = len(np.unique(corpus.groups[pool]))
    kinds = f"values of data.group={corpus.group}" if corpus.group else "rows"
    together = f" of {count} {kinds}, and examples of one stay together" if count < len(pool) else ""
    where = " in data.validation_path" if corpus.validation else ""
    return (
        f"data.validation={validation} and data.judged={judged} hold out all of {len(pool)} examples{where}{together}: "
        "give less, or more data"
    )
