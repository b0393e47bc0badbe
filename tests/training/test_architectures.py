"""Every architecture from its config to the figure: train two arms, read their snapshots, analyse them."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from deltaw import load_adapter
from deltaw.commands.analyze import analyse
from deltaw.model.names import projection_of
from deltaw.run.directory import RunDirectory
from tests.support.architectures import ARCHITECTURES, WIDTH
from tests.support.hybrids import save
from tests.support.tiny import ROOT, make_labelled, make_pairs, run

RANKS = (2, 4)
SETTINGS = [f"arms.ranks={list(RANKS)}", "trainer.max_steps=3", "trainer.precision=32-true", "run.name=trained"]


@pytest.mark.filterwarnings("ignore::UserWarning:transformers")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_two_arms_are_trained_and_drawn(name: str, tmp_path: Path) -> None:
    architecture = ARCHITECTURES[name]
    architecture.save(tmp_path / "base")
    make = make_labelled if architecture.task == "classification" else make_pairs
    trained = run(
        tmp_path,
        f"task={architecture.task}",
        f"data.path={make(tmp_path / 'data.jsonl')}",
        *SETTINGS,
    )
    for rank in RANKS:
        folder = trained / f"snapshots/r{rank}-s0"
        start, end = (load_adapter(folder / f"step-{step:08d}") for step in (0, 3))
        widths = {"q": architecture.rows_q, "v": architecture.rows_v}
        for projection, width in widths.items():
            sites = {site: lora for site, lora in end.sites.items() if projection_of(site.projection) == projection}
            assert len(sites) == architecture.attentions
            assert {(lora.rank, lora.d_in, lora.d_out) for lora in sites.values()} == {(rank, WIDTH, width)}
        assert len(end.sites) == 2 * architecture.attentions
        assert all(not start.B(site).any() and end.B(site).any() for site in end.sites)
    assert drawn(trained) == {"fig6", "fig6-times-chance", "fig6-minus-control"}


@pytest.mark.filterwarnings("ignore::UserWarning:transformers")
@pytest.mark.parametrize(
    ("name", "sites"),
    [
        ("gemma3", {(layer, projection) for layer in range(1, 5) for projection in "qv"}),
        ("qwen3_5_text", {(layer, name) for layer in (2, 4) for name in ("q", "v", "output_gate_proj")}),
    ],
)
def test_a_base_with_images_and_a_hybrid_one_are_trained_where_they_have_attention(
    name: str, sites: set[tuple[int, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(name, tmp_path / "base")
    make_pairs(tmp_path / "pairs.jsonl")
    trained = run(tmp_path, *SETTINGS)
    adapter = load_adapter(trained / "snapshots" / "r4-s0" / "step-00000003")
    assert {(site.layer, site.projection) for site in adapter.sites} == sites
    record = RunDirectory(trained).record
    assert record.weights.keys() == record.modules.keys()
    assert ("in 2 of 4 layers" in capsys.readouterr().out) == (name == "qwen3_5_text")
    assert "fig6" in drawn(trained)


def test_no_step_is_skipped_where_padding_lies_outside_of_all_windows(tmp_path: Path) -> None:
    """In bfloat16 on a CPU, where attention to short rows is by plain products."""
    modernbert = ARCHITECTURES["modernbert"]
    replace(modernbert, config=modernbert.config | {"local_attention": 4}).save(tmp_path / "base")
    data = f"data.path={make_labelled(tmp_path / 'data.jsonl')}"
    trained = run(
        tmp_path,
        "task=classification",
        data,
        *SETTINGS,
        "model.dtype=bfloat16",
        "trainer.max_steps=10",
        "arms.lrs=[0.01]",
    )
    table = pd.read_csv(trained / "metrics.csv")
    skipped = table[table["name"] == "train/skipped"]
    assert len(skipped) == 20 and (skipped["value"] == 0).all()


def drawn(run: Path) -> set[str]:
    """The pictures of Figure 6 that an analysis of a run draws."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        analyse(compose("analyze", [f"run={run}", "basis=A", "exhibits=[fig6]"]))
    return {path.stem for path in (run / "analysis-A").glob("fig6*.png")}
