"""What the page says about adding the adapters: the verdict of each pair, and the numbers of each site."""

from math import isnan

import pandas as pd

from deltaw.analysis import columns
from deltaw.analysis.output import MERGE
from deltaw.report.merging import Merge, verdicts
from deltaw.report.page.elements import definitions, folded, items, table

MOST_ROWS = 300  # of the table; more are no reading


def merge_section(merges: list[Merge], rows: pd.DataFrame) -> str:
    """The section of the page; "" for adapters that are not to be merged.

    Args:
        rows: the columns of `deltaw.analysis.columns.MERGE`, a row for each pair and site.
    """
    if rows.empty:
        return ""
    several = len(rows[columns.TWO].drop_duplicates()) > 1
    shown = rows.drop(columns=columns.TWO[2:] if several else columns.TWO)
    names = {name: str(name).replace("_", " ") for name in shown}
    cells = [[_cell(value) for value in row] for row in shown.head(MOST_ROWS).itertuples(index=False)]
    rest = f"These are the first {MOST_ROWS} of {len(rows):,} rows; {MERGE} has all."
    note = f"<p class=note>{rest}</p>" if len(cells) < len(rows) else ""
    meanings = definitions((title, columns.MERGE.get(str(name), "")) for name, title in names.items())
    by_site = folded("Every site as a table", table(names.values(), cells) + note + f"<dl>{meanings}</dl>")
    return (
        '<section aria-labelledby="h-merging"><h2 id="h-merging">If they are added</h2>'
        f"{items(verdicts(merges))}<p class=note>This follows from the weights; only the loss of the sum decides.</p>"
        f"{by_site}</section>"
    )


def _cell(value: object) -> str:
    """A number with three digits; "" where it is not defined."""
    if not isinstance(value, float):
        return str(value)
    return "" if isnan(value) else f"{value:.3g}".replace("-", "−")
