"""An analysis of two adapters: measure tables, then make the exhibits and the summary from the tables."""

import json
import shlex
from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from deltaw import report
from deltaw.advice.advise import advice_of
from deltaw.advice.command import typed
from deltaw.analysis.bases import BASES
from deltaw.analysis.experiment import experiment
from deltaw.analysis.output import (
    PAGE,
    TABLES,
    digits_of,
    files_of,
    name_of_folder,
    names_in_record,
    record_in,
    refusing,
    replace_files,
    shipped_in,
)
from deltaw.analysis.pairs import AdapterPair, adapter_pair, named
from deltaw.analysis.selection import arms_called, default_pair, find_adapter, is_folder
from deltaw.commands.ship import cut_to_ship, where_it_lies
from deltaw.config.folder import CONF
from deltaw.config.limits import check_each_key, check_paths
from deltaw.config.schema import AnalyzeConfig, names_in
from deltaw.errors import UserError, nearest
from deltaw.exhibit.measure import measure
from deltaw.exhibit.picture import drawing
from deltaw.exhibit.record import is_of, record
from deltaw.exhibit.selection import EXHIBITS, pictures, select
from deltaw.exhibit.view import view_of
from deltaw.report import page
from deltaw.run.directory import RunDirectory

PATHS = ("run", "left", "others", "right", "left_start", "right_start", "base", "output")


def analyse(cfg: DictConfig) -> None:
    """Compare two adapters, and leave the tables, exhibits and summary in the output folder.

    Raises:
        UserError: a setting cannot be used, or the adapters cannot be compared. The output folder then stays as it was.
    """
    _check(cfg)
    given = _find_runs(cfg)
    names = default_pair(given, cfg.left, cfg.right)
    subject = _subject(cfg, given, names)
    output = Path(cfg.output) if cfg.output else _output(cfg, given, names, subject)
    selection = select(view_of(subject, cfg), names_in(cfg.exhibits), _earlier_exhibits(output, subject))
    runs = subject.runs or given
    advice = advice_of(runs, cfg.margin) if runs else None
    cut = cut_to_ship(runs, advice) if cfg.advice else None
    earlier = [] if cut else shipped_in(output)
    with replace_files(output, [*files_of(selection.pairings), *(cut.files if cut else ())], earlier) as folder:
        print(f"comparing {_in_words(subject)}", flush=True)
        tables = measure(selection, cfg.basis, cfg.device)
        to_draw = list(pictures(selection, tables))
        print(f"drawing {', '.join(picture.name for picture in to_draw) or 'nothing'}", flush=True)
        with refusing(output):
            with drawing(to_draw, folder):
                tables.write(folder)
                summary = report.summarise(tables, selection.view, list(selection.pairings))
                report.write(summary, advice, folder)
                shown = list(chain([subject.pairing], *selection.pairings.values()))
                page.write(folder, tables, selection.view, shown, summary, advice, runs, _command(cfg, given, names))
                if cut:
                    cut.write(folder)
            written = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
            files = [TABLES, *map(str, written), *earlier]
            (folder / TABLES).write_text(json.dumps(record(selection, tables, files), indent=2) + "\n")
    drawn = sorted(str(output / file) for file in files if file.endswith(".png"))
    answer = ["", *report.sentences(advice, summary)] if advice else []
    answer += [where_it_lies(output, cut)] if advice and cfg.advice else []
    found = [*summary.remarks, *report.findings(summary), *report.verdicts(summary.merge)]
    print(*selection.left_out, *found, *answer, *drawn, output / PAGE, sep="\n")


def _command(cfg: DictConfig, runs: Sequence[RunDirectory], names: tuple[str, str]) -> str:
    """The command that makes this analysis again, with the runs and the adapters that it chose."""
    shipped = OmegaConf.load(CONF / "analyze.yaml")
    assert isinstance(shipped, DictConfig)
    given = {str(key): value for key, value in cfg.items() if value != shipped.get(key)}
    paths = [str(run.path) for run in runs]
    chosen = {"run": paths[0] if len(paths) == 1 else paths} if paths else {}
    settings = {**chosen, "left": names[0], "right": names[1], **given}
    return " ".join(["deltaw analyze", *(shlex.quote(f"{key}={typed(value)}") for key, value in settings.items())])


def _check(cfg: DictConfig) -> None:
    if cfg.step != "last" and not isinstance(cfg.step, int):
        raise UserError(f"step={cfg.step}: give last, or a step as a whole number")
    check_paths(cfg, PATHS)
    check_each_key(cfg, AnalyzeConfig)
    for exhibit in names_in(cfg.exhibits):
        _check_choice("exhibits", exhibit, [*EXHIBITS, "all"])
    _check_choice("basis", cfg.basis, [*BASES, "all"])
    if cfg.device.partition(":")[0] not in ("cpu", "cuda"):
        raise UserError(f"device={cfg.device}: give cpu or cuda")
    if cfg.device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"device={cfg.device}: PyTorch finds no GPU here, give cpu")
    if cfg.base and not Path(cfg.base).is_dir():
        raise UserError(f"base={cfg.base}: is no folder: give the folder with the base's config.json and safetensors")
    if not cfg.projections:
        raise UserError("projections=[]: name at least one, as [q,v]")
    page.find_plotly()


def _check_choice(key: str, given: str, known: list[str]) -> None:
    if given not in known:
        meant = nearest(given, known)
        hint = f"did you mean {meant}? " if meant else ""
        raise UserError(f"{key}={given}: {hint}choose from {', '.join(known)}")


def _find_runs(cfg: DictConfig) -> list[RunDirectory]:
    """The runs that have the arms: `run`, else the newest one; none where left and right are both folders.

    Raises:
        UserError: the runs of `run` are not one experiment; or left or right is a folder, and nothing is given to
            compare it with.
    """
    if cfg.run:
        return experiment(Path(run) for run in names_in(cfg.run))
    newest = RunDirectory.newest(Path("runs"))
    runs = [newest] if newest else []
    given = {side: cfg[side] for side in ("left", "right") if cfg[side]}
    folders = {side: name for side, name in given.items() if is_folder(name)}
    if len(folders) == 2:
        return []
    for side, name in folders.items():
        if len(given) == 1 and not arms_called(name.partition("@")[0], runs):
            other = "right" if side == "left" else "left"
            raise UserError(
                f"{side}={name} is alone: give {other}= as well, another adapter or run, or run= and an arm of it"
            )
    return runs


def _subject(cfg: DictConfig, runs: Sequence[RunDirectory], names: tuple[str, str]) -> AdapterPair:
    step = None if cfg.step == "last" else int(cfg.step)
    left, right = (
        find_adapter(name, runs, step, start, cfg.base)
        for name, start in zip(names, (cfg.left_start, cfg.right_start), strict=True)
    )
    others = [named(_short(name), find_adapter(name, runs, step, base=cfg.base)) for name in names_in(cfg.others)]
    return adapter_pair(left, right, Path(cfg.base) if cfg.base else None, others)


def _short(name: str) -> str:
    """An adapter as the user named it; of a long path the last two parts."""
    path = Path(name)
    return "/".join(filter(None, [path.parent.name, path.name])) or name


def _output(cfg: DictConfig, runs: Sequence[RunDirectory], names: tuple[str, str], subject: AdapterPair) -> Path:
    """The folder of this analysis: in the first run if runs are given or have one of the arms, else in the current one.

    Outside of a run no pair is the default one: the first pair has the default folder. A pair whose name another pair
    has taken gets eight hexadecimal digits behind it.
    """
    name = partial(name_of_folder, subject.left, subject.right, cfg.basis)
    home = runs and (cfg.run or any(arms_called(name.partition("@")[0], runs) for name in names))
    candidates = [name(is_default=False), f"{name(is_default=False)}-{digits_of(subject.left, subject.right)}"]
    if not home or _is_default(runs, names):
        candidates.insert(0, name(is_default=True))
    folders = [(runs[0].path if home else Path()) / one for one in candidates]
    records = {folder: record_in(folder) for folder in folders}
    ours = [folder for folder, record in records.items() if is_of(record, subject.left, subject.right, folder)]
    free = [folder for folder, record in records.items() if record is None]
    return [*ours, *free, folders[-1]][0]


def _is_default(runs: Sequence[RunDirectory], names: tuple[str, str]) -> bool:
    arms = [arms_called(name.partition("@")[0], runs) for name in names]
    try:
        return arms == [[name] for name in default_pair(runs, None, None)]
    except UserError:  # there are no two arms
        return False


def _earlier_exhibits(output: Path, subject: AdapterPair) -> list[str]:
    """The exhibits of these two adapters that the folder holds."""
    earlier = record_in(output)
    return names_in_record(earlier, "exhibits") if is_of(earlier, subject.left, subject.right, output) else []


def _in_words(subject: AdapterPair) -> str:
    """The pair, its run and step, and the number of its sites, as "r8-s0 with r64-s0 of runs/x after step 150 at …"."""
    sides = (subject.left, subject.right)
    left, right = (f" of {one.run} after step {one.step}" if (one := side.origin) else "" for side in sides)
    count = len(subject.left.sites)
    sites = f"{count} site{'' if count == 1 else 's'}"
    return f"{sides[0].name}{left if left != right else ''} with {sides[1].name}{right} at {sites}"
