"""Every exhibit, from a tiny run with the arms that exhibits need."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file, save_file

from deltaw.analysis.bases import BASES
from deltaw.analysis.pairs import AdapterPair
from deltaw.commands.analyze import analyse
from deltaw.errors import UserError
from deltaw.exhibit.selection import EXHIBITS
from deltaw.exhibit.source import source_of
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_adapter
from tests.support.tiny import ROOT, run

GRIDS = ("fig3", "fig4", "fig6", "fig7", "fig8")
SHADOW = ("", "-shadow1")


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """Two ranks, two seeds, two controls of each, and a shadow of each arm of the task."""
    arms = ["arms.seeds=[0,1]", "arms.controls=[shuffled,frozen_a]"]
    return run(folder, *arms, "data.judged=8", "trainer.max_steps=10", "run.name=trained")


@pytest.fixture(scope="module")
def analysis(trained: Path) -> Iterator[Path]:
    analyze(f"run={trained}", "exhibits=all")
    yield trained / "analysis"


def analyze(*overrides: str) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        analyse(compose("analyze", list(overrides)))


def test_all_exhibits_are_made_and_the_grids_in_their_variants(analysis: Path) -> None:
    made = {path.stem for path in analysis.glob("*.png")}
    assert made == {path.stem for path in analysis.glob("*.pdf")}
    of_two_arms = [grid for grid in GRIDS if grid != "fig8"]
    variants = [f"{grid}-times-chance" for grid in GRIDS] + [f"{grid}-minus-control" for grid in of_two_arms]
    assert made == {*EXHIBITS, *variants}
    tables = json.loads((analysis / "tables.json").read_text())
    assert (tables["exhibits"], tables["left_out"], tables["bases"]) == (list(EXHIBITS), [], list(BASES))
    assert (tables["layers"], tables["middle"], tables["projections"]) == ([1, 2, 3], 2, ["q", "v"])


def test_figures_name_the_model_and_the_data_of_a_run(trained: Path) -> None:
    assert source_of([RunDirectory(trained).adapter("r2-s0")]) == {"model": ["base"], "data": ["pairs"]}


def test_the_tables_hold_the_pairs_that_exhibits_and_summary_need(analysis: Path) -> None:
    pairs = pd.read_parquet(analysis / "pairs.parquet")
    names = set(pairs[["left", "right"]].itertuples(index=False, name=None))
    assert names == {
        *((f"r2-s{seed}{left}", f"r6-s{1 - seed}{right}") for seed in (0, 1) for left in SHADOW for right in SHADOW),
        *((f"r2-s0{shadow}", f"r6-s0{shadow}") for shadow in SHADOW),
        ("r2-s0", "r6-s0-shuffled"),
        ("r2-s0", "r6-s0-frozen_a"),
        ("r2-s0", "r2-s1"),
        *((f"r6-s0{shadow}", f"r6-s1{shadow}") for shadow in SHADOW),
        ("r2-s0", "r2-s0"),
        ("r6-s0", "r6-s0"),
    }
    over_time = pairs[(pairs.left == "r2-s0") & (pairs.right == "r2-s0")]
    assert set(over_time[["step_left", "step_right"]].itertuples(index=False, name=None)) == {(0, 10), (5, 10), (0, 5)}
    phi = pd.read_parquet(analysis / "phi.parquet")
    assert set(phi[["left", "right"]].itertuples(index=False, name=None)) == {
        *((f"r2-s0{shadow}", f"r6-s0{shadow}") for shadow in SHADOW),
        *((f"r6-s0{shadow}", f"r6-s1{shadow}") for shadow in SHADOW),
        ("gaussian", "gaussian'"),
        *(("W", arm) for arm in ("r2-s0", "r6-s0", "random")),
    }


def test_table_7_and_figure_8_measure_against_the_weight_of_the_base(
    folder: Path, trained: Path, analysis: Path
) -> None:
    base = load_file(folder / "base" / "model.safetensors")
    adapter = RunDirectory(trained).adapter("r6-s0")
    site = next(site for site in adapter.sites if (site.layer, site.projection) == (2, "v"))
    W = base["model.layers.1.self_attn.v_proj.weight"].double()
    update = adapter.sites[site].scale * (adapter.B(site) @ adapter.A(site)).double()
    U, values, Vh = torch.linalg.svd(update)
    table = pd.read_parquet(analysis / "amplification.parquet")
    row = table[(table.arm == "r6-s0") & (table.projection == "v")].iloc[0]
    by_update = torch.linalg.norm(U[:, :6].T @ W @ Vh[:6].T).item()
    assert [row.norm_W, row.norm_update, row.by_update, row.factor] == pytest.approx(
        [W.norm().item(), values.norm().item(), by_update, values.norm().item() / by_update], rel=1e-5
    )
    assert row.by_W == pytest.approx(torch.linalg.svdvals(W)[:6].norm().item())

    phi = pd.read_parquet(analysis / "phi.parquet")
    cells = phi[(phi.left == "W") & (phi.right == "r6-s0") & (phi.projection == "v")]
    of_W, of_A = torch.linalg.svd(W).Vh, torch.linalg.svd(adapter.A(site).double()).Vh
    cosines = (of_W @ of_A.T).square()
    expected = [cosines[:i, :j].sum().item() / min(i, j) for i, j in zip(cells.i, cells.j, strict=True)]
    assert cells.phi.to_numpy() == pytest.approx(np.array(expected), abs=1e-6)
    assert sorted(set(cells.i)) == [2, 3]  # from 450/12288 to a tenth of 32


def test_another_folder_of_the_base_can_be_given(folder: Path, trained: Path, tmp_path: Path) -> None:
    analyze(f"run={trained}", "exhibits=table7", f"base={folder / 'base'}", f"output={tmp_path / 'out'}")
    ours, theirs = (pd.read_parquet(at / "amplification.parquet") for at in (trained / "analysis", tmp_path / "out"))
    pd.testing.assert_frame_equal(ours, theirs)


def test_any_basis_and_projections_can_be_drawn(trained: Path, tmp_path: Path) -> None:
    analyze(f"run={trained}", "basis=update", "projections=[v]", "exhibits=[fig4]", f"output={tmp_path / 'out'}")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (summary["basis"], summary["contrast"]) == ("update", None)
    assert {levels["basis"] for levels in summary["levels"]} == {"update"}
    assert {pair[0]["projection"] for pair in summary["ranges"]} == {"v"}


def test_all_linear_shows_what_any_layer_adapts_attention_first(tmp_path: Path) -> None:
    for rank in (2, 4):
        weights = write_adapter(tmp_path / f"r{rank}", rank) / "adapter_model.safetensors"
        tensors = load_file(weights)
        for name in [name for name in tensors if "layers.0" not in name and "q_proj" in name]:
            for other in ("down_proj", "o_proj"):
                tensors[name.replace("q_proj", other)] = tensors[name].clone()
        save_file(tensors, weights)
    sides = [f"left={tmp_path / 'r2'}", f"right={tmp_path / 'r4'}", f"output={tmp_path / 'out'}"]
    analyze(*sides, "projections=all-linear", "exhibits=fig6")
    tables = json.loads((tmp_path / "out" / "tables.json").read_text())
    assert (tables["projections"], tables["layers"]) == (["q", "v", "o", "down_proj"], [1, 3, 4])


def test_left_and_right_are_compared_as_two_seeds_where_they_are(trained: Path) -> None:
    arms = RunDirectory(trained)
    chosen = AdapterPair(arms.adapter("r2-s0"), arms.adapter("r2-s1")).two_seeds()
    assert (chosen.left.name, chosen.right.name) == ("r2-s0", "r2-s1")
    default = AdapterPair(arms.adapter("r2-s0"), arms.adapter("r6-s0")).two_seeds()
    assert (default.left.name, default.right.name) == ("r6-s0", "r6-s1")


def test_a_missing_weight_is_reported_before_anything_is_measured(folder: Path, trained: Path, tmp_path: Path) -> None:
    record = json.loads((trained / "run.json").read_text())
    adapters = RunDirectory(trained)
    subject = AdapterPair(adapters.adapter("r2-s0"), adapters.adapter("r6-s0"), base=tmp_path / "nowhere")
    assert record["weights"].keys() == {site.module for site in subject.left.sites}
    with pytest.raises(UserError, match=r"nowhere.* is no folder here: give base="):
        subject.find_weight(next(iter(subject.left.sites)))


def test_the_summary_reports_the_compared_steps_and_not_the_steps_of_evolution(analysis: Path) -> None:
    summary = json.loads((analysis / "summary.json").read_text())
    assert {(one["arm"], one["basis"]): one["sites"] for one in summary["spectra"]} == {
        (arm, basis): 6 for arm in ("r2-s0", "r6-s0") for basis in BASES
    }
    assert {levels["basis"]: levels["sites"] for levels in summary["levels"]} == dict.fromkeys(BASES, 6)
    assert [control["name"] for control in summary["controls"]] == ["r6-s0-shuffled", "r6-s0-frozen_a"]


def test_a_control_is_neither_its_own_control_nor_a_second_seed(trained: Path) -> None:
    arms = RunDirectory(trained)
    against = AdapterPair(arms.adapter("r6-s0"), arms.adapter("r6-s0-shuffled"))
    assert against.controls() == []
    assert against.two_seeds().right.name == "r6-s1-shuffled"
    steps = AdapterPair(arms.adapter("r6-s0", 5), arms.adapter("r6-s0"))
    assert steps.two_seeds().right.name == "r6-s1"


def test_a_control_without_that_step_is_left_out(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    shutil.rmtree(copy / "snapshots" / "r6-s0-shuffled" / "step-00000005")
    arms = RunDirectory(copy)
    subject = AdapterPair(arms.adapter("r2-s0", 5), arms.adapter("r6-s0", 5))
    assert [pairing.right.name for pairing in subject.controls()] == ["r6-s0-frozen_a"]


def test_all_leaves_out_the_exhibits_that_need_a_missing_base(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    record = json.loads((copy / "run.json").read_text())
    record["weights"] = {module: weight | {"file": "/gone"} for module, weight in record["weights"].items()}
    (copy / "run.json").write_text(json.dumps(record))
    for config in copy.glob("snapshots/*/*/adapter_config.json"):
        config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "gone"}))
    analyze(f"run={copy}", "exhibits=all", "basis=A")
    left_out = json.loads((copy / "analysis-A" / "tables.json").read_text())["left_out"]
    assert [line.partition(" ")[0] for line in left_out] == ["fig8", "table7"]
    with pytest.raises(UserError, match="'gone' is no folder here"):
        analyze(f"run={copy}", "exhibits=fig8", "basis=A")


def test_one_folder_can_be_compared_with_itself_in_every_exhibit(folder: Path, trained: Path, tmp_path: Path) -> None:
    one = trained / "snapshots" / "r6-s0" / "step-00000010"
    analyze(f"left={one}", f"right={one}", f"base={folder / 'base'}", f"output={tmp_path / 'out'}", "exhibits=all")
    pairs = pd.read_parquet(tmp_path / "out" / "pairs.parquet")
    assert pairs.phi_corner.to_numpy() == pytest.approx(np.ones(len(pairs)))
    assert (tmp_path / "out" / "fig8.png").exists()
    assert not [*(tmp_path / "out").glob("*-minus-control.*")]  # a folder has no shadows


def test_two_random_adapters_share_nothing_beyond_chance(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_adapter(tmp_path / str(seed), rank=3, seed=seed)
    analyze(f"left={tmp_path / '1'}", f"right={tmp_path / '2'}", f"output={tmp_path / 'out'}")
    findings = json.loads((tmp_path / "out" / "summary.json").read_text())["findings"]
    assert findings[-1].startswith("Nothing beyond chance")
