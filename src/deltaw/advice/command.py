"""The command that would settle which rank to train, and what it takes."""

import shlex
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from deltaw.advice.judged import Judged, JudgedArm
from deltaw.advice.recipes import Recipe
from deltaw.config.folder import CONF
from deltaw.run.directory import RUN_CONFIG, RunDirectory, load_config
from deltaw.run.identity import differences
from deltaw.run.record import SHADOW

_DEFAULTS = {"model": "bundled", "data": "calls"}
# Sections and keys that the command gives itself, that name the old run, or that a choice of configs gives.
_LEFT_OUT = (
    *(f"arms.{key}" for key in ("ranks", "seeds", "lrs", "list", "controls")),
    *("run", "data.judged", "data.source", "logger", "plan", "dry_run"),
)
_FORWARD = 1 / 3  # of the work of a training row: the backward pass takes twice the forward pass


@dataclass(frozen=True, eq=False)
class Settling:
    """What is to be trained.

    Attributes:
        recipes: of the ranks to compare, the best so far, from the smallest rank up.
        lrs: learning rates tried so far, by rank.
        seeds: number of seeds of each rank.
        judged: number of judged examples.

    Each seed is a run of its own, so that no process holds more arms than one seed's.
    """

    recipes: list[Recipe]
    lrs: dict[int, list[float]]
    seeds: int
    judged: int

    @property
    def ranks(self) -> list[int]:
        """In ascending order."""
        return [one.rank for one in self.recipes]

    @property
    def seed_numbers(self) -> list[int]:
        """The seeds so far, then the smallest numbers that are not among them."""
        so_far = sorted({seed for one in self.recipes for seed in one.seeds})
        new = [seed for seed in range(self.seeds) if seed not in so_far]
        return sorted([*so_far, *new[: max(self.seeds - len(so_far), 0)]])

    @property
    def rates(self) -> list[float]:
        """Each rank's best learning rate, and its neighbours by a factor of 3 where none was tried on that side."""
        found = set()
        for one in self.recipes:
            tried = self.lrs[one.rank]
            beyond = [one.lr / 3] * (one.lr == tried[0]) + [one.lr * 3] * (one.lr == tried[-1])
            found |= {one.lr, *(float(f"{rate:.2g}") for rate in beyond)}
        return sorted(found)

    @property
    def arms_of_a_seed(self) -> int:
        """They stand side by side in one run."""
        return len(self.ranks) * len(self.rates)


def command_of(settling: Settling) -> str | None:
    """A sweep with the settings of the first run, these arms and judged examples, and a run for each seed.

    None where no shipped config gives the run's data, or the run has no config.
    """
    own = _own_settings(settling.recipes[-1].arms[0])
    if own is None:
        return None
    seeds = ",".join(typed([seed]) for seed in settling.seed_numbers)
    arms = {"arms.ranks": settling.ranks, "arms.seeds": seeds, "arms.lrs": settling.rates}
    judged = {"data.judged": settling.judged, "run.suffix": f"-judged{settling.judged}"}  # a name tells arms alone
    settings = {**own, **arms, **judged}
    return " ".join(["deltaw train -m", *(shlex.quote(f"{key}={typed(value)}") for key, value in settings.items())])


def times_of(settling: Settling, judged: Judged) -> float | None:
    """How much longer than the runs so far the command takes, by the rows that it passes through the base.

    Each arm learns steps × batch rows, forward and backward; judging takes a forward pass, a third of that, of every
    arm and of the cuts, and of the base in every run. Validation and shadows are left out. None where a run has no
    config.
    """
    runs = {arm.run.path: arm.run for arm in judged.arms}.values()
    try:
        batch = load_config(settling.recipes[-1].arms[0].run.path / RUN_CONFIG).data.batch
    except (OSError, ValueError, AttributeError):
        return None
    trained = sum(arm["control"] != SHADOW for run in runs for arm in run.record.arms)
    rows = judged.step * batch
    so_far = trained * rows + _FORWARD * judged.passes * len(judged.labels)
    cuts = len(settling.recipes[-1].arms[0].cuts)
    of_a_seed = settling.arms_of_a_seed * rows + _FORWARD * (settling.arms_of_a_seed + 1 + cuts) * settling.judged
    return len(settling.seed_numbers) * of_a_seed / so_far


def most_judged(run: RunDirectory) -> float:
    """Judged examples that the data set of a run can give while half of the others are left to learn.

    Infinite where that is not known, as for a validation file.
    """
    data = run.record.data
    if data.get("validation_path") or "learnt" not in data or "judged" not in data:
        return inf
    return float(data["judged"] + data["learnt"] // 2)


def _own_settings(arm: JudgedArm) -> dict[str, Any] | None:
    """The settings of an arm's run that differ from the shipped configs; None if they are not known."""
    try:
        config = load_config(arm.run.path / RUN_CONFIG)
        groups = {"model": _model(config), "data": _data(config)}
    except (OSError, ValueError, LookupError, AttributeError):
        return None
    config.arms.alpha, config.arms.scaling = arm.record["alpha"], arm.record["scaling"]  # arms.list may give others
    chosen = {name: choice for name, choice in groups.items() if choice != _DEFAULTS[name]}
    shipped = _shipped(groups)
    filled = OmegaConf.merge(shipped, config)  # the file of an older version lacks some keys
    assert isinstance(filled, DictConfig)
    own = differences(filled, shipped, _LEFT_OUT)
    return chosen | {key: value for key, (value, _) in own.items()}


def _shipped(groups: dict[str, str]) -> DictConfig:
    """The config of `deltaw train` with these choices."""
    train = OmegaConf.load(CONF / "train.yaml")
    assert isinstance(train, DictConfig)
    for group, choice in groups.items():
        train[group] = _choice(group, choice)
    del train.defaults, train.hydra, train.data.source  # what reads the data interpolates a path that has no value
    return train


def _choice(group: str, choice: str) -> Any:
    """The YAML of a choice, on top of those that it names in its defaults."""
    own = OmegaConf.load(CONF / group / f"{choice}.yaml")
    parents = own.pop("defaults", []) if isinstance(own, DictConfig) else []
    return OmegaConf.merge(*(_choice(group, parent) for parent in parents), own)


def _model(config: DictConfig) -> str:
    """The choice of conf/model whose path the run has, else hub."""
    paths = {file.stem: _plain(file).get("path") for file in (CONF / "model").glob("*.yaml")}
    return next((name for name, path in paths.items() if path == OmegaConf.select(config, "model.path")), "hub")


def _data(config: DictConfig) -> str:
    """The choice of conf/data whose class reads the run's examples. Raises LookupError if there is none."""
    kinds = {_plain(file)["source"]["_target_"]: file.stem for file in (CONF / "data").glob("*.yaml")}
    return kinds[OmegaConf.select(config, "data.source._target_")]


def _plain(file: Path) -> Any:
    return OmegaConf.to_container(OmegaConf.load(file))


def typed(value: Any) -> str:
    """A value as one types it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | ListConfig):
        return f"[{','.join(map(typed, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
