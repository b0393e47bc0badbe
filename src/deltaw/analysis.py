"""From two adapters to an analysis: tables, then the exhibits and the summary made from them."""

import json
from dataclasses import asdict
from pathlib import Path

from deltaw import report
from deltaw.cli import UserError
from deltaw.config import AnalyzeConfig
from deltaw.exhibit import fig6, save
from deltaw.run import ANALYSIS, PHI, SITES, TABLES, RunDirectory, default_pair, find_adapter, rewritten
from deltaw.study import BASIS, compare, describe_pair, describe_sites, told_apart

EXHIBITS = {"fig6": fig6.draw}


def analyse(cfg: AnalyzeConfig) -> None:
    """Tables from the two adapters, then the exhibits and the summary from the tables."""
    _check(cfg)
    run = RunDirectory(Path(cfg.run)) if cfg.run else RunDirectory.newest(Path("runs"))
    names = default_pair(run, cfg.left, cfg.right)
    left, right = (find_adapter(name, run, None if cfg.step == "last" else int(cfg.step)) for name in names)
    left, right = told_apart(left, right)
    print(f"comparing {left.name} with {right.name} at {len(left.factors)} sites", flush=True)
    pair, phi, sites = describe_pair(left, right), compare(left, right), describe_sites(left, right)
    layers = fig6.layers_to_draw(phi, list(cfg.layers) if cfg.layers else None)
    summary = report.summarise(phi, sites, pair, layers)

    output = Path(cfg.output) if cfg.output else _home(cfg, run, names) / ANALYSIS
    with rewritten(output) as folder:
        phi.to_parquet(folder / PHI, index=False)
        sites.to_parquet(folder / SITES, index=False)
        (folder / TABLES).write_text(json.dumps({"pairs": [asdict(pair)], "bases": [BASIS]}, indent=2) + "\n")
        for exhibit in cfg.exhibits:
            print(f"drawing {exhibit}", flush=True)
            save(EXHIBITS[exhibit](phi, layers), folder / exhibit)
        report.write(summary, folder)
    print(*(f"{output / exhibit}.png" for exhibit in cfg.exhibits), *report.findings(summary), sep="\n")


def _check(cfg: AnalyzeConfig) -> None:
    if cfg.step != "last" and not isinstance(cfg.step, int):
        raise UserError(f"step={cfg.step}: give last, or a step as a whole number")
    if unknown := sorted(set(cfg.exhibits) - EXHIBITS.keys()):
        raise UserError(f"exhibits={unknown}: there are {sorted(EXHIBITS)}")


def _home(cfg: AnalyzeConfig, run: RunDirectory | None, names: tuple[str, str]) -> Path:
    """The run that the analysis belongs to; the working directory where it belongs to none."""
    belongs = run is not None and (cfg.run or any(name in run.arms for name in names))
    return run.path if run is not None and belongs else Path()
