"""The `draw` of every exhibit by its name. This folder loads matplotlib and never PyTorch."""

from collections.abc import Callable

from matplotlib.figure import Figure

from deltaw.exhibit.drawing import evolution, fig3, fig4, fig6, fig7, fig8, loss_by_rank, table6, table7

DRAW: dict[str, Callable[..., Figure]] = {
    "fig3": fig3.draw,
    "fig4": fig4.draw,
    "fig6": fig6.draw,
    "fig7": fig7.draw,
    "fig8": fig8.draw,
    "table6": table6.draw,
    "table7": table7.draw,
    "evolution": evolution.draw,
    "loss_by_rank": loss_by_rank.draw,
}
