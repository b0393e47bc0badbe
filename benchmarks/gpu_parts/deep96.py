"""`experiment=deep96`: a base of 96 layers, pretrained as long as there is time, both ranks and the control, fig6."""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZIP_DEFLATED, ZipFile

import torch
from hydra import compose, initialize_config_dir
from results_file import Results
from transformers import AutoTokenizer

from deltaw.analysis.losses import losses_of
from deltaw.bundled.pretrain import LENGTH, Recipe, build, fit
from deltaw.commands.analyze import analyse
from deltaw.commands.train import train
from deltaw.config.folder import BUNDLED
from deltaw.exhibit.picture import prepare
from deltaw.run.directory import RunDirectory
from gpu_parts.sizes import Sizes
from gpu_parts.workload import ROOT, config_of, free, synchronise

TIMED = 4  # steps of pretraining, which tell how many fit; the first is not counted
KEPT = ("fig6.png", "fig6-times-chance.png", "table6.png", "summary.md", "pairs.parquet", "losses.parquet")
LARGEST = 16 * 2**20  # bytes of a file in OUT


def run(out: Path, sizes: Sizes) -> None:
    """Pretrain, train, analyse; then the losses as JSON, pictures and tables as `deep96.zip`."""
    results = Results(out / "deep96.json")
    with results.measuring(), TemporaryDirectory() as folder:
        started = time.perf_counter()
        settings = ["experiment=deep96", f"model.path={folder}/deep96", f"trainer.accelerator={sizes.device}"]
        settings += [f"run.dir={folder}/run", "trainer.devices=1", *sizes.deep96]
        steps = affordable_steps(Recipe(**config_of(*settings).model.pretrain), sizes)
        results.note(pretraining_steps=steps)
        train(config_of(*settings, f"model.pretrain.steps={steps}"))
        results.note(trained_s=time.perf_counter() - started)
        prepare()
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            analyse(compose("analyze", [f"run={folder}/run", "exhibits=[fig6,table6]", f"device={sizes.device}"]))
        pack(Path(folder) / "run", out / "deep96.zip")
        report(Path(folder) / "run", results)
        results.note(analysed_s=time.perf_counter() - started)


def affordable_steps(recipe: Recipe, sizes: Sizes) -> int:
    """How many steps of pretraining fit into the time there is, by the time of a few; at most the recipe's own."""
    with torch.device(sizes.device):
        model = build(AutoTokenizer.from_pretrained(BUNDLED), recipe)
    tokens = torch.randint(model.config.vocab_size, (recipe.rows * LENGTH * 2,))
    fit(model, tokens, 1, recipe.rows, recipe.muon)
    synchronise(sizes.device)
    started = time.perf_counter()
    fit(model, tokens, TIMED, recipe.rows, recipe.muon)
    synchronise(sizes.device)
    seconds = (time.perf_counter() - started) / TIMED
    del model
    free(sizes.device)
    return max(TIMED, min(recipe.steps, int(sizes.pretraining / seconds)))


def pack(run: Path, file: Path) -> None:
    """Pictures, tables and records of a run, the smallest first: as many as fit into the file."""
    found = [path for name in KEPT if (path := run / "analysis" / name).exists()]
    found += [run / "metrics.csv", run / "run.json", run / "analysis" / "phi.parquet"]
    with ZipFile(file, "w", ZIP_DEFLATED) as packed:
        for path in sorted(found, key=lambda path: path.stat().st_size):
            if file.stat().st_size + path.stat().st_size < LARGEST:
                packed.write(path, path.name)


def report(run: Path, results: Results) -> None:
    """Loss and time of every arm."""
    directory = RunDirectory(run)
    losses = losses_of([directory.adapter(arm) for arm in directory.arms])
    for row in losses.itertuples():
        results.add(arm=row.arm, control=row.control, loss_at_start=row.start, loss=row.end)
    seconds = directory.metrics().query("name == 'step_s'").value
    results.note(step_s=float(seconds.median()))
