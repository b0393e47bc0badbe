"""An analysis of two adapters: measure tables, then make the exhibits and the summary from the tables."""

import json
from pathlib import Path

import torch
from omegaconf import DictConfig

from deltaw import report
from deltaw.analysis.bases import BASES
from deltaw.analysis.output import ANALYSIS, TABLES, replace_folder
from deltaw.analysis.pairs import AdapterPair, with_distinct_names
from deltaw.analysis.selection import default_pair, find_adapter
from deltaw.config.schema import names_in
from deltaw.errors import UserError
from deltaw.exhibit.measure import measure
from deltaw.exhibit.picture import drawing
from deltaw.exhibit.record import record
from deltaw.exhibit.selection import EXHIBITS, pictures, select
from deltaw.exhibit.view import view_of
from deltaw.run.directory import RunDirectory


def analyse(cfg: DictConfig) -> None:
    """Compare two adapters, and leave the tables, exhibits and summary in the output folder.

    Raises:
        UserError: a setting cannot be used, or the adapters cannot be compared. The output folder then stays as it was.
    """
    _check(cfg)
    run = _find_run(cfg)
    names = default_pair(run, cfg.left, cfg.right)
    subject = _subject(cfg, run, names)
    selection = select(view_of(subject, cfg), names_in(cfg.exhibits))
    print(f"comparing {subject.left.name} with {subject.right.name} at {len(subject.left.sites)} sites", flush=True)
    tables = measure(selection, cfg.basis, cfg.device)
    output = Path(cfg.output) if cfg.output else _folder_of(cfg, run, names) / ANALYSIS
    to_draw = list(pictures(selection, tables))
    print(f"drawing {', '.join(picture.name for picture in to_draw) or 'nothing'}", flush=True)
    with replace_folder(output) as folder, drawing(to_draw, folder):
        tables.write(folder)
        (folder / TABLES).write_text(json.dumps(record(selection, tables), indent=2) + "\n")
        summary = report.summarise(tables, selection.view, list(selection.pairings))
        report.write(summary, folder)
    files = sorted(str(path) for path in output.glob("*.png"))
    print(*files, *selection.left_out, *report.findings(summary), sep="\n")


def _check(cfg: DictConfig) -> None:
    if cfg.step != "last" and not isinstance(cfg.step, int):
        raise UserError(f"step={cfg.step}: give last, or a step as a whole number")
    if unknown := sorted(set(names_in(cfg.exhibits)) - {*EXHIBITS, "all"}):
        raise UserError(f"exhibits={unknown}: choose from {sorted(EXHIBITS)} or all")
    if cfg.basis not in (*BASES, "all"):
        raise UserError(f"basis={cfg.basis}: choose from {', '.join(BASES)} or all")
    if cfg.device.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"device={cfg.device}: give cpu or cuda")
    if cfg.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={cfg.device}: PyTorch finds no GPU here, give cpu")
    if not cfg.projections:
        raise UserError("projections=[]: name at least one, as [q,v]")


def _find_run(cfg: DictConfig) -> RunDirectory | None:
    """The run that has the arms: `run`, else the newest one; None where left and right are both folders."""
    if cfg.run:
        return RunDirectory(Path(cfg.run))
    paths = [Path(name) for name in (cfg.left, cfg.right) if name]
    return None if len(paths) == 2 and all(map(Path.is_dir, paths)) else RunDirectory.newest(Path("runs"))


def _subject(cfg: DictConfig, run: RunDirectory | None, names: tuple[str, str]) -> AdapterPair:
    step = None if cfg.step == "last" else int(cfg.step)
    left, right = (
        find_adapter(name, run, step, start)
        for name, start in zip(names, (cfg.left_start, cfg.right_start), strict=True)
    )
    return AdapterPair(*with_distinct_names(left, right), Path(cfg.base) if cfg.base else None)


def _folder_of(cfg: DictConfig, run: RunDirectory | None, names: tuple[str, str]) -> Path:
    """Where the analysis goes: into the run, if it was given or has one of the arms, else into the current folder."""
    belongs = run is not None and (cfg.run or any(name.partition("@")[0] in run.arms for name in names))
    return run.path if run is not None and belongs else Path()
