"""What a notebook shows: a comparison of two adapters with its figures and findings, and the advice of a run."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from deltaw.advice.advise import advice_of
from deltaw.advice.answer import Advice
from deltaw.analysis.compare import Comparison, Pairing, compare_all, opened
from deltaw.analysis.experiment import experiment
from deltaw.analysis.pairs import AdapterPair, adapter_pair
from deltaw.analysis.selection import default_pair, find_adapter
from deltaw.errors import UserError, nearest
from deltaw.exhibit.measure import measure
from deltaw.exhibit.selection import EXHIBITS, Selection, pictures, select
from deltaw.exhibit.tables import Tables
from deltaw.exhibit.view import View, view_of
from deltaw.report.advice import sentences
from deltaw.report.findings import findings
from deltaw.report.merging import verdicts
from deltaw.report.numbers import Summary, summarise
from deltaw.report.plain import in_html, visible
from deltaw.run.adapter import Adapter

MARGIN = 0.01  # as `deltaw analyze` has it by default


@dataclass(frozen=True, kw_only=True, repr=False)
class PairComparison(Comparison):
    """The tables about two adapters, and what can be made from them.

    Figures, findings and control pairs show q and v, or every projection where the adapters have neither.

    Attributes:
        left, right: the adapters.
        basis, device: as given to `compare`.
    """

    left: Adapter
    right: Adapter
    basis: str
    device: str

    def plot(self, exhibit: str = "fig6", variant: str = "") -> Any:
        """An exhibit as a figure of matplotlib, which a notebook shows after `%matplotlib inline`.

        Args:
            exhibit: "fig3", "fig4", "fig6", "fig7", "fig8", "table6", "table7", "evolution" or "loss_by_rank".
            variant: "" for φ; of a figure with cells also "times-chance", or "minus-control" where both have shadows.

        Raises:
            UserError: there is no such exhibit or variant, or these adapters do not allow it.
        """
        if exhibit not in EXHIBITS:
            meant = nearest(exhibit, EXHIBITS)
            raise UserError(
                f"exhibit={exhibit}: {f'did you mean {meant}? ' if meant else ''}choose from {', '.join(EXHIBITS)}"
            )
        selection = select(self._view, [exhibit])
        drawn = {one.variant: one for one in pictures(selection, measure(selection, self.basis, self.device))}
        if variant not in drawn:
            raise UserError(f"variant={variant}: {exhibit} of these adapters has {', '.join(map(repr, drawn))}")
        return drawn[variant].draw()

    @property
    def findings(self) -> list[str]:
        """What was learned and what is shared, a sentence or two each, as `deltaw analyze` prints them."""
        return findings(self.summary)

    @property
    def control_pairs(self) -> pd.DataFrame:
        """What left and right share beyond their control pair: the columns of `deltaw.analysis.columns.EXCESS`."""
        return self._tables.excess

    @property
    def merging(self) -> list[str]:
        """What the weights say about adding the two; empty for two arms of one experiment."""
        return list(verdicts(self.summary.merge))

    @cached_property
    def summary(self) -> Summary:
        """All numbers of `summary.json`."""
        return summarise(self._tables, self._view, [])

    @cached_property
    def _tables(self) -> Tables:
        return measure(Selection(self._view, {}, []), self.basis, self.device)

    @cached_property
    def _subject(self) -> AdapterPair:
        return adapter_pair(self.left, self.right)

    @cached_property
    def _view(self) -> View:
        return _view(self._subject, self.basis)

    @property
    def _legend(self) -> dict[str, str]:
        """The short name of each adapter and where it lies."""
        sides = (self._subject.left, self._subject.right)
        return {side.name: str(side.folder) for side in sides}

    def __repr__(self) -> str:
        """Means over the sites by basis, where the adapters lie, and the remarks."""
        what, places = " with ".join(self._legend), [f"{name}: {place}" for name, place in self._legend.items()]
        remarks = [f"- {remark}" for remark in self.remarks]
        head, *rest = map(visible, [f"{what} {self.about}:", *places, *remarks])
        return "\n".join([head, self.means.to_string(), *rest])

    def _repr_html_(self) -> str:
        """The same as HTML; names come from folders and are escaped."""
        what = " with ".join(f"<b>{in_html(name)}</b>" for name in self._legend)
        places = "<br>".join(f"{in_html(name)}: <code>{in_html(place)}</code>" for name, place in self._legend.items())
        remarks = "".join(f"<li>{in_html(remark)}</li>" for remark in self.remarks)
        return f"<p>{what} {self.about}:</p>{self.means.to_html()}<p>{places}</p><ul>{remarks}</ul>"


def compare(
    left: Adapter | str | Path, right: Adapter | str | Path, basis: str = "all", device: str = "cpu"
) -> PairComparison:
    """φ between two adapters of one base, at every site that both adapt and for every pair of sizes, beside chance.

    Args:
        left, right: adapters, or folders for `load_adapter`. `i` counts the directions of the left one, `j` of the
            right one.
        basis: "A", "update", "input", "output", or "all" for every basis that both adapters have.
        device: device that multiplies the factors, "cpu" or "cuda".

    Raises:
        UserError: no site is adapted by both, the widths at one differ, the runs recorded two different bases, an
            adapter lacks the basis, or an argument is something else.
    """
    if device.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"device={device}: give cpu or cuda")
    one, other = opened("left", left), opened("right", right)
    tables = compare_all([Pairing(one, other)], [basis], device)
    found = {field.name: getattr(tables, field.name) for field in fields(tables)}
    return PairComparison(**found, left=one, right=other, basis=basis, device=device)


def load_arm(run: str | Path, name: str, step: int | None = None) -> Adapter:
    """An arm of a run, with its start and its shadows: its comparisons have the basis update and control pairs.

    Args:
        run: its directory.
        name: of the arm, as r8-s0.
        step: of the snapshot; None for the last one.

    Raises:
        UserError: there is no such run, arm or snapshot.
    """
    return find_adapter(name, experiment([Path(run)]), step)


@dataclass(frozen=True, kw_only=True, repr=False)
class Answer(Advice):
    """The advice of a run, with its sentences.

    Attributes:
        sentences: the first is the answer, or why there is none.
    """

    sentences: list[str]

    def __repr__(self) -> str:
        return "\n".join(map(visible, self.sentences))

    def _repr_html_(self) -> str:
        first, *rest = map(in_html, self.sentences)
        return f"<p><b>{first}</b></p><ul>{''.join(f'<li>{sentence}</li>' for sentence in rest)}</ul>"


def advise(run: str | Path | Sequence[str | Path], margin: float = MARGIN) -> Answer:
    """Which rank to ship and to train, and where: the answer of `deltaw analyze run=…`.

    Args:
        run: a run directory, or several of one experiment.
        margin: share of the gain over the base that may be given up for a smaller rank, between 0 and 1.

    Raises:
        UserError: a run cannot be read, the runs are not one experiment, or they have no two adapters to compare.
    """
    if not 0 < margin < 1:
        raise UserError(f"margin={margin}: give a share between 0 and 1")
    runs = experiment(Path(one) for one in ([run] if isinstance(run, str | Path) else run))
    left, right = (find_adapter(name, runs, step=None) for name in default_pair(runs, None, None))
    view = _view(adapter_pair(left, right), "all")
    summary = summarise(measure(Selection(view, {}, []), "all", "cpu"), view, [])
    advice = advice_of(runs, margin)
    return Answer(**vars(advice), sentences=sentences(advice, summary))


def _view(subject: AdapterPair, basis: str) -> View:
    projections = {site.projection for site in subject.left.sites}
    shown: Iterable[Any] = ["q", "v"] if projections & {"q", "v"} else ["all-linear"]
    return view_of(subject, OmegaConf.create({"basis": basis, "projections": list(shown), "layers": None}))
