"""The verdict about adding two adapters, where it is known."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deltaw import compare
from deltaw.report.merging import Merge, merges_of, section, verdicts

WIDTH, SITES = 64, [f"base_model.model.layers.{n}.{p}_proj" for n in range(4) for p in "qv"]


def adapter(folder: Path, seed: int, rank: int = 4, A: Callable[[Tensor], Tensor] = lambda A: A) -> Path:
    """Random factors in every site; `A` changes each A."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in SITES:
        tensors[f"{module}.lora_A.weight"] = A(torch.randn(rank, WIDTH, generator=draw)).contiguous()
        tensors[f"{module}.lora_B.weight"] = torch.randn(WIDTH, rank, generator=draw)
    return write(folder, tensors)


def write(folder: Path, tensors: dict[str, Tensor]) -> Path:
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    config = '{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "base_model_name_or_path": "tiny"}'
    (folder / "adapter_config.json").write_text(config)
    return folder


def with_B(folder: Path, source: Path, change: Callable[[Tensor], Tensor]) -> Path:  # noqa: N802
    """The same adapter with each B changed."""
    tensors = load_file(source / "adapter_model.safetensors")
    return write(folder, {name: change(one) if "lora_B" in name else one for name, one in tensors.items()})


def verdict(left: Path, right: Path) -> Merge:
    (found,) = merges_of(compare(left, right).merge)
    return found


def test_a_copy_is_a_duplicate_at_any_size(tmp_path: Path) -> None:
    left = adapter(tmp_path / "a", seed=0)
    for number, factor in enumerate((1.0, 0.2, 3.0)):
        found = verdict(left, with_B(tmp_path / f"copy{number}", left, lambda B, factor=factor: factor * B))  # type: ignore[misc]
        assert found.verdict == "duplicates"
        assert (found.cosine, found.norm_ratio) == pytest.approx((1, factor))


def test_minus_b_is_interference(tmp_path: Path) -> None:
    left = adapter(tmp_path / "a", seed=0)
    found = verdict(left, with_B(tmp_path / "negative", left, lambda B: -B))
    assert found.verdict == "cancel" and found.cosine == pytest.approx(-1)
    assert next(verdicts([found])).startswith(f"{found.left} + {found.right}: expect interference: ")


@pytest.mark.parametrize("seed", range(1, 4))
@pytest.mark.parametrize("rank", [1, 8])
def test_random_adapters_are_merged_by_addition(tmp_path: Path, seed: int, rank: int) -> None:
    found = verdict(adapter(tmp_path / "a", seed=0), adapter(tmp_path / "b", seed=seed, rank=rank))
    assert found.verdict == "apart" and abs(found.cosine) < 0.1


def test_one_input_side_with_other_outputs_is_no_interference(tmp_path: Path) -> None:
    left = adapter(tmp_path / "a", seed=0)
    draw = torch.Generator().manual_seed(1)
    right = with_B(tmp_path / "b", left, lambda B: torch.randn(B.shape, generator=draw))
    found = verdict(left, right)
    assert found.verdict == "apart" and found.overlap_input == pytest.approx(1)


def test_what_shares_both_sides_interferes_unless_it_agrees(tmp_path: Path) -> None:
    left = adapter(tmp_path / "a", seed=0)
    draw = torch.Generator().manual_seed(1)
    mixed = with_B(tmp_path / "b", left, lambda B: B.roll(1, dims=1).contiguous())
    assert verdict(left, mixed).verdict == "shared"
    near = with_B(tmp_path / "c", left, lambda B: B + 1.5 * torch.randn(B.shape, generator=draw))
    assert verdict(left, near).verdict == "alike"


def test_an_update_of_0_is_nothing_to_merge(tmp_path: Path) -> None:
    left = adapter(tmp_path / "a", seed=0)
    found = verdict(left, with_B(tmp_path / "zero", left, lambda B: 0 * B))
    assert list(verdicts([found])) == [f"{found.left} + {found.right}: nothing to merge: a ΔW is 0."]


def test_the_section_has_a_line_and_a_row_for_each_pair(tmp_path: Path) -> None:
    left, right = adapter(tmp_path / "a", seed=0), adapter(tmp_path / "b", seed=1)
    lines = section([verdict(left, right), verdict(left, left)]).splitlines()
    assert sum(line.startswith("- ") for line in lines) == 2
    assert sum(line.startswith("| ") for line in lines) == 4
