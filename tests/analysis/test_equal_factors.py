"""Equal A under several names is found by its values, and counts once; ΔW = 0 is found in any basis."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deltaw import compare, load_adapter
from deltaw.analysis.compare import Comparison
from deltaw.analysis.equal_factors import distinct, first_sites_with_A
from deltaw.analysis.pairs import adapter_pair
from deltaw.report.findings import contrast
from tests.support.folders import write_adapter
from tests.support.summaries import summarise_run

LAYERS = 4


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], None]) -> Path:
    tensors = load_file(folder / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def export(tensors: dict[str, Tensor]) -> None:
    """One A for q and v in each layer."""
    for name in tensors:
        if "v_proj.lora_A" in name:
            tensors[name] = tensors[name.replace("v_proj", "q_proj")].clone()


def tie(tensors: dict[str, Tensor]) -> None:
    """One A for q of all layers."""
    for name in tensors:
        if "q_proj.lora_A" in name:
            tensors[name] = tensors["base_model.model.layers.0.q_proj.lora_A.weight"].clone()


def adapters(
    folder: Path, change: Callable[[dict[str, Tensor]], None], fan_in_fan_out: bool = False
) -> tuple[Path, Path]:
    left, right = (
        rewrite(write_adapter(folder / f"r{rank}", rank, LAYERS, seed=rank, fan_in_fan_out=fan_in_fan_out), change)
        for rank in (2, 5)
    )
    return left, right


def counted(comparison: Comparison, basis: str, measure: str) -> int:
    return len(distinct(comparison.pairs[comparison.pairs.basis == basis], measure))


def test_an_export_of_fused_layers_counts_once_on_the_input_side(tmp_path: Path) -> None:
    comparison = compare(*adapters(tmp_path, export))
    assert counted(comparison, "A", "first") == counted(comparison, "A", "corner") == LAYERS
    assert counted(comparison, "input", "corner") == counted(comparison, "input", "k_star") == LAYERS
    assert counted(comparison, "input", "first") == counted(comparison, "output", "corner") == 2 * LAYERS
    [remark] = comparison.remarks
    assert remark.startswith(
        f"{tmp_path}/r2 and {tmp_path}/r5: 8 sites (q and v of layers 1 to 4) have only 4 different A"
    )


def test_what_counts_once_on_input_is_the_same_there(tmp_path: Path) -> None:
    pairs = compare(*adapters(tmp_path, export)).pairs
    by_name = pairs[pairs.basis == "input"].pivot(
        index="layer", columns="projection", values=["phi_corner", "phi_first"]
    )
    assert by_name["phi_corner", "q"].to_numpy() == pytest.approx(by_name["phi_corner", "v"].to_numpy())
    assert by_name["phi_first", "q"].to_numpy() != pytest.approx(by_name["phi_first", "v"].to_numpy(), abs=1e-3)


def test_a_fused_layer_counts_once_and_is_remarked_once(tmp_path: Path) -> None:
    def fuse(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            tensor = tensors.pop(name)
            if "q_proj" in name:
                fused = name.replace("layers", "transformer.h").replace("q_proj", "attn.c_attn")
                parts = [tensor] if "lora_A" in name else [tensor, 2 * tensor.flip(0), tensor.roll(1, 0)]
                tensors[fused] = torch.cat(parts)

    comparison = compare(*adapters(tmp_path, fuse, fan_in_fan_out=True))
    assert set(comparison.pairs.projection) == {"q", "k", "v"}
    assert counted(comparison, "A", "first") == LAYERS and counted(comparison, "output", "first") == 3 * LAYERS
    [remark] = comparison.remarks
    assert "c_attn fuses q, k and v: they share A" in remark and remark.endswith("there they count once")


def test_an_a_that_layers_share_counts_once(tmp_path: Path) -> None:
    comparison = compare(*adapters(tmp_path, tie), "A")
    assert counted(comparison, "A", "first") == 1 + LAYERS
    assert "4 sites (q of layers 1 to 4) have only 1 different A" in comparison.remarks[0]


def test_sites_count_apart_where_one_adapter_has_different_a(tmp_path: Path) -> None:
    left = rewrite(write_adapter(tmp_path / "left", 2, LAYERS), export)
    comparison = compare(left, write_adapter(tmp_path / "right", 5, LAYERS, seed=1), "A")
    assert counted(comparison, "A", "first") == 2 * LAYERS
    assert comparison.remarks[0].startswith(f"{left}: 8 sites")


def test_equal_first_rows_are_not_equal_a(tmp_path: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        for tensor in tensors.values():
            tensor[0] = 0

    adapter = load_adapter(rewrite(write_adapter(tmp_path / "r3", 3, LAYERS), change))
    assert all(first == site for site, first in first_sites_with_A(adapter).items())


def test_the_summary_counts_an_a_once_whichever_of_its_names_is_shown(tmp_path: Path) -> None:
    left, right = adapters(tmp_path, export)
    subject = adapter_pair(load_adapter(left), load_adapter(right))
    summary = summarise_run(subject.left, subject.right, [1])
    once, twice = (next(one for one in summary.levels if one.basis == basis) for basis in ("A", "output"))
    both = compare(subject.left, subject.right).pairs
    assert once.first.phi == pytest.approx(both[(both.basis == "A") & (both.projection == "q")].phi_first.mean())
    assert twice.first.phi == pytest.approx(both[both.basis == "output"].phi_first.mean())
    assert [one.sites for one in summary.spectra if one.basis == "A"] == [LAYERS, LAYERS]
    assert contrast(summary.contrast) == ""  # not q minus v = 0.000
    assert "different A" in summary.remarks[0]
    of_v = summarise_run(subject.left, subject.right, [1], projections=["v"])
    assert of_v.levels[0].first.phi == pytest.approx(once.first.phi) and of_v.by_i == pytest.approx(summary.by_i)


def test_several_a_of_zeros_are_no_error(tmp_path: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if "lora_A" in name:
                tensor.copy_(torch.zeros_like(tensor))

    left, right = adapters(tmp_path, change)
    comparison = compare(left, right)
    assert comparison.pairs.phi_first.isna().all()
    assert comparison.remarks[0].startswith(f"{left} and {right} learned nothing")
