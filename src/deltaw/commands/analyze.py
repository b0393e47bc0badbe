"""From two adapters to an analysis: tables, then the exhibits and the summary made from them."""

import json
from pathlib import Path

import torch
from omegaconf import DictConfig

from deltaw import report
from deltaw.analysis.output import ANALYSIS, TABLES, rewritten
from deltaw.analysis.pairs import Subject, told_apart
from deltaw.analysis.selection import default_pair, find_adapter
from deltaw.analysis.site import BASES
from deltaw.config.schema import names_in
from deltaw.errors import UserError
from deltaw.exhibit.picture import drawn
from deltaw.exhibit.selection import EXHIBITS, Family
from deltaw.run.directory import RunDirectory


def analyse(cfg: DictConfig) -> None:
    """Tables from the two adapters, then the exhibits and the summary from the tables."""
    _check(cfg)
    run = _run(cfg)
    names = default_pair(run, cfg.left, cfg.right)
    subject = _subject(cfg, run, names)
    family = Family(subject, cfg)
    print(f"comparing {subject.left.name} with {subject.right.name} at {len(subject.left.sites)} sites", flush=True)
    tables = family.tables()
    output = Path(cfg.output) if cfg.output else _home(cfg, run, names) / ANALYSIS
    pictures = list(family.pictures(tables))
    print(f"drawing {', '.join(picture.name for picture in pictures) or 'nothing'}", flush=True)
    with rewritten(output) as folder, drawn(pictures, folder):
        tables.write(folder)
        (folder / TABLES).write_text(json.dumps(family.record(tables), indent=2) + "\n")
        summary = report.summarise(
            tables, subject, family.basis, family.projections, family.layers, list(family.pairings)
        )
        report.write(summary, folder)
    files = sorted(str(path) for path in output.glob("*.png"))
    print(*files, *family.left_out, *report.findings(summary), sep="\n")


def _check(cfg: DictConfig) -> None:
    if cfg.step != "last" and not isinstance(cfg.step, int):
        raise UserError(f"step={cfg.step}: give last, or a step as a whole number")
    if unknown := sorted(set(names_in(cfg.exhibits)) - {*EXHIBITS, "all"}):
        raise UserError(f"exhibits={unknown}: there are {sorted(EXHIBITS)}, or all")
    if cfg.basis not in (*BASES, "all"):
        raise UserError(f"basis={cfg.basis}: choose from {', '.join(BASES)} or all")
    if cfg.device.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"device={cfg.device}: give cpu or cuda")
    if cfg.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={cfg.device}: PyTorch finds no GPU here, give cpu")
    if not cfg.projections:
        raise UserError("projections=[]: name at least one, as [q,v]")


def _run(cfg: DictConfig) -> RunDirectory | None:
    """The run that arms' names are of: the newest one is asked for only where a name is not a path by itself."""
    if cfg.run:
        return RunDirectory(Path(cfg.run))
    paths = [Path(name) for name in (cfg.left, cfg.right) if name]
    return None if len(paths) == 2 and all(map(Path.is_dir, paths)) else RunDirectory.newest(Path("runs"))


def _subject(cfg: DictConfig, run: RunDirectory | None, names: tuple[str, str]) -> Subject:
    step = None if cfg.step == "last" else int(cfg.step)
    left, right = (
        find_adapter(name, run, step, start)
        for name, start in zip(names, (cfg.left_start, cfg.right_start), strict=True)
    )
    return Subject(*told_apart(left, right), Path(cfg.base) if cfg.base else None)


def _home(cfg: DictConfig, run: RunDirectory | None, names: tuple[str, str]) -> Path:
    """The run that the analysis belongs to; the working directory where it belongs to none."""
    belongs = run is not None and (cfg.run or any(name.partition("@")[0] in run.arms for name in names))
    return run.path if run is not None and belongs else Path()
