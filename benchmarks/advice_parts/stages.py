"""What is trained: the learning rates, the ranks and the patterns, each stage in a run directory of its own."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import product
from math import inf, isfinite
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from deltaw.advice.answer import Advice
from deltaw.commands.train import train
from deltaw.config.folder import CONF
from deltaw.config.schema import register
from deltaw.maths.spectrum import spectrum
from deltaw.report.table import table
from deltaw.run.adapter import Adapter
from deltaw.run.directory import RunDirectory

LEARN, READ = 0.016, 0.006  # seconds to learn from a row and to measure its loss, on two cores of an AMD EPYC

Arms = list[dict[str, Any]]  # as arms.list takes them


@dataclass(frozen=True)
class Sizes:
    """How much is trained.

    Attributes:
        ranks: of the arms, ascending; the largest is cut to the others.
        short: a rank that is probably too small, at which a pattern has most to gain.
        rates: learning rates tried at each rank.
        rounds: of trying rates, at most.
        tuning_seed: of the arms that the rates are chosen by.
        seeds: of all other arms.
        settings: of train.py, for every stage.
    """

    ranks: Sequence[int]
    short: int
    rates: Sequence[float]
    rounds: int
    tuning_seed: int
    seeds: Sequence[int]
    settings: Sequence[str]


SETTINGS = ("arms.shadows=0", "trainer.devices=1", "metrics.validate_every=${trainer.max_steps}")
FULL = Sizes(
    ranks=(1, 2, 4, 8, 16, 32, 64),
    short=2,
    rates=(0.005, 0.01, 0.02),
    rounds=3,
    tuning_seed=3,
    seeds=(0, 1, 2),
    settings=(*SETTINGS, "data.validation=256", "data.judged=1536"),
)
TOY = Sizes(
    ranks=(1, 2, 4),
    short=2,
    rates=(0.01, 0.02),
    rounds=1,
    tuning_seed=3,
    seeds=(0, 1, 2),
    settings=(*SETTINGS, "data.validation=8", "data.judged=48", "data.max_length=64", "trainer.max_steps=4"),
)


@dataclass(frozen=True)
class Study:
    """The runs of one size under one folder."""

    folder: Path
    sizes: Sizes
    overrides: Sequence[str]

    def config(self, *more: str) -> DictConfig:
        """Of a stage; `more` has the last word."""
        register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose("train", [*self.sizes.settings, *self.overrides, *more])

    def run(self, name: str, arms: Arms, cuts: Sequence[int] = ()) -> RunDirectory:
        """Train the arms in a run of this name, or what is left of it."""
        cfg = self.config(f"run.name={name}", f"run.dir={self.folder / name}", f"truncate={list(cuts)}")
        cfg.arms.list = arms
        with redirect_stdout(sys.stderr):
            train(cfg)
        return RunDirectory(Path(cfg.run.dir))

    def rates(self) -> dict[int, dict[float, float]]:
        """The validation loss at each learning rate tried, by rank; infinite where it diverged."""
        losses: dict[int, dict[float, float]] = {rank: {} for rank in self.sizes.ranks}
        wanted = list(product(self.sizes.ranks, self.sizes.rates))
        for number in range(1, self.sizes.rounds + 1):
            run = self.run(f"rates-{number}", arms_of(wanted, [self.sizes.tuning_seed]))
            ends = run.validation().end
            for name, arm in run.arms.items():
                losses[arm["rank"]][arm["lr"]] = ends[name] if isfinite(ends[name]) else inf
            wanted = [(rank, rate) for rank, tried in losses.items() if (rate := beyond(tried))]
            if not wanted:
                break
        return losses

    def ranks(self, chosen: Mapping[int, float]) -> RunDirectory:
        """All seeds of each rank at its learning rate."""
        return self.run("ranks", arms_of(list(chosen.items()), self.sizes.seeds), self.sizes.ranks[:-1])

    def patterns(self, chosen: Mapping[int, float], run: RunDirectory, advice: Advice) -> RunDirectory:
        """All seeds of patterns at two ranks: with alpha / rank of the site as the scale, and with the uniform one."""
        means = sorted({self.sizes.short, self.advised(advice)})
        losses = run.validation().end
        largest = min(run.recipe(self.sizes.ranks[-1]), key=lambda arm: losses[arm["name"]])
        arms: Arms = []
        for rank in means:
            ranks = pattern(run.adapter(largest["name"]), rank)
            alphas = {module: largest["alpha"] * of_site / rank for module, of_site in ranks.items()}
            for more in ({"rank_pattern": ranks}, {"rank_pattern": ranks, "alpha_pattern": alphas}):
                arms += arms_of([(rank, chosen[rank])], self.sizes.seeds, **more)
        return self.run("-".join(["patterns", *map(str, means)]), arms)

    def advised(self, advice: Advice) -> int:
        """The rank to train, else the cut of the recipe; one in the middle if neither leaves a pattern a choice."""
        trained = advice.train.rank if advice.train else None
        cut = advice.recipe.ship.cut if advice.recipe and advice.recipe.ship else None
        inner = self.sizes.ranks[1:-1]
        return next((rank for rank in (trained, cut) if rank and rank in inner), inner[len(inner) // 2])


def arms_of(settings: Sequence[tuple[int, float]], seeds: Sequence[int], **more: Any) -> Arms:
    """An entry of arms.list for each seed at each rank and learning rate."""
    return [{"rank": rank, "lr": rate, "seed": seed, **more} for seed in seeds for rank, rate in settings]


def best(tried: Mapping[float, float]) -> float:
    """The learning rate with the lowest loss."""
    return min(tried, key=lambda rate: tried[rate])


def beyond(tried: Mapping[float, float]) -> float | None:
    """The rate to try next: half of the smallest, or twice the largest. None where the best one lies between others."""
    rate = best(tried)
    return rate / 2 if rate == min(tried) else rate * 2 if rate == max(tried) else None


def pattern(adapter: Adapter, rank: int) -> dict[str, int]:
    """Ranks by module: how many of the rank × sites largest singular values of all ΔW are this site's.

    Each site keeps its first, since no rank is 0. Where all sites are equally wide, as in the bundled base, the arm has
    as many parameters as one of this rank at every site.
    """
    values = {
        site.module: (lora.scale * spectrum(adapter.A(site), adapter.B(site)).singular_values).tolist()
        for site, lora in adapter.sites.items()
    }
    others = sorted(((value, module) for module, of_site in values.items() for value in of_site[1:]), reverse=True)
    counts = Counter(module for _, module in others[: (rank - 1) * len(values)])
    return {module: 1 + counts[module] for module in values}


def plan(study: Study) -> str:
    """About how long each stage takes."""
    cfg, sizes = study.config(), study.sizes
    uniform_arms = len(sizes.ranks) * len(sizes.seeds)

    def row(stage: str, arms: int, cuts: int = 0) -> list[object]:
        learnt = arms * cfg.trainer.max_steps * cfg.data.batch
        read = 2 * arms * cfg.data.validation + (arms + cuts + 1) * cfg.data.judged
        return [stage, arms, cuts, round((learnt * LEARN + read * READ) / 60)]

    rows = [
        row("rates-1", len(sizes.ranks) * len(sizes.rates)),
        row("rates-2, for two ranks", 2),
        row("ranks", uniform_arms, (len(sizes.ranks) - 1) * len(sizes.seeds)),
        row("patterns", 4 * len(sizes.seeds)),
    ]
    return table(["stage", "arms", "cuts", "minutes on two cores"], rows)
