"""Figure 3 of the LoRA paper (§7.2): φ between two ranks at one layer, for ΔW_q and ΔW_v or others.

The paper prints the arguments of its title as (A_{r=64}, A_{r=8}); here i belongs to the first, as in Figure 6.
"""

import pandas as pd
from matplotlib.figure import Figure

from deltaw.exhibit.drawing import fig6
from deltaw.exhibit.drawing.heading import UNKNOWN, Source
from deltaw.exhibit.drawing.scale import PAPER, Scale


def draw(cells: pd.DataFrame, layer: int, scale: Scale = PAPER, source: Source = UNKNOWN) -> Figure:
    """One row of Figure 6: the row of `layer`."""
    return fig6.draw(cells, [layer], scale, source)
