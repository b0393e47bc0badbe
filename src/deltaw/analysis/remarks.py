"""What the tables show that changes how a reader should read them."""

from collections.abc import Iterator, Sequence

import pandas as pd

from deltaw.run.adapter import Adapter

SAME_START = 0.3  # mean cosine of the rows of two trained A: 0.5 to 1 after one start, about 0 after two
FROZEN = 1e-2  # below this ‖A − A₀‖ / ‖A₀‖, A has hardly been trained


def remarks_of(adapters: Sequence[Adapter], pairs: pd.DataFrame, sites: pd.DataFrame) -> list[str]:
    """A sentence for each remark, each sentence once.

    Args:
        adapters: they bring remarks of their own.
        pairs, sites: their tables, see `deltaw.analysis.columns`.
    """
    of_adapters = [f"{arm.name}: {remark}" for arm in adapters for remark in arm.remarks]
    return list(dict.fromkeys([*of_adapters, *_shared_starts(pairs), *_frozen(sites)]))


def _shared_starts(pairs: pd.DataFrame) -> Iterator[str]:
    means = pairs.groupby(["left", "right"], as_index=False, sort=False).row_cosine.mean()
    for pair in means[(means.row_cosine > SAME_START) & (means.left != means.right)].itertuples():
        yield (
            f"Shared initialisation: the rows of A of {pair.left} and {pair.right} have a mean cosine of "
            f"{pair.row_cosine:.2f}, as after one start; what they share says little about what they learned"
        )


def _frozen(sites: pd.DataFrame) -> Iterator[str]:
    moved = sites[sites.step.fillna(-1) != 0].groupby("arm", sort=False).moved.max()
    for arm, most in moved[moved < FROZEN].items():
        yield (
            f"A of {arm} is frozen or nearly so, ‖A − A₀‖ / ‖A₀‖ at most {most:.1g}: what it learned is on the "
            "output side, and A itself is its random start"
        )
