"""The verdict about adding two adapters, where it is known."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deltaw import compare
from deltaw.report.merging import Merge, merges_of, section, verdicts

WIDTH, SITES = 64, [f"base_model.model.layers.{n}.{p}_proj" for n in range(4) for p in "qv"]


def adapter(
    folder: Path, seed: int, rank: int = 4, A: Callable[[Tensor], Tensor] = lambda A: A, sites: Sequence[str] = SITES
) -> Path:
    """Random factors in every site; `A` changes each A."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for module in sites:
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


@pytest.mark.parametrize("seed", range(1, 7))
@pytest.mark.parametrize("rank", [1, 8, WIDTH])
def test_random_adapters_are_merged_by_addition(tmp_path: Path, seed: int, rank: int) -> None:
    """At every rank, also where their spans are the whole space."""
    left = adapter(tmp_path / "a", seed=0, rank=rank)
    found = verdict(left, adapter(tmp_path / "b", seed=seed, rank=rank))
    assert found.verdict == "apart" and abs(found.cosine) < 0.1


def test_few_sites_of_rank_1_do_not_make_chance_a_finding(tmp_path: Path) -> None:
    """One site of two random vectors has more than three times chance in one draw of twelve."""
    left = adapter(tmp_path / "a", seed=0, rank=1, sites=SITES[:1])
    rights = [adapter(tmp_path / f"b{seed}", seed=seed, rank=1, sites=SITES[:1]) for seed in range(1, 61)]
    found = [verdict(left, right) for right in rights]
    assert max(one.overlap_input * WIDTH for one in found) > 3
    assert sum(one.verdict == "shared" for one in found) <= 2  # the tail of the overlap is heavier than a normal one


@pytest.mark.parametrize("rank", [4, WIDTH])
def test_what_acts_on_the_same_inputs_interferes_unless_it_agrees(tmp_path: Path, rank: int) -> None:
    """Whatever the rank: A of full rank has a few directions that matter."""
    weights = torch.logspace(0, -3, rank)[:, None]
    left = adapter(tmp_path / "a", seed=0, rank=rank, A=lambda A: weights * A)
    draw = torch.Generator().manual_seed(1)
    other_outputs = with_B(tmp_path / "b", left, lambda B: torch.randn(B.shape, generator=draw))
    found = verdict(left, other_outputs)
    assert found.verdict == "shared" and found.effect_on_left == pytest.approx(1, abs=0.2)
    near = with_B(tmp_path / "c", left, lambda B: B + 1.5 * torch.randn(B.shape, generator=draw))
    assert verdict(left, near).verdict == "alike"


def test_other_inputs_are_no_interference_whatever_the_outputs(tmp_path: Path) -> None:
    left = adapter(tmp_path / "a", seed=0)
    draw = torch.Generator().manual_seed(1)
    tensors = load_file(left / "adapter_model.safetensors")
    right = {n: torch.randn(one.shape, generator=draw) if "lora_A" in n else one for n, one in tensors.items()}
    found = verdict(left, write(tmp_path / "b", right))
    assert found.verdict == "apart" and found.overlap_output > 5 * found.chance_output


def test_a_small_update_harms_less_than_a_large_one(tmp_path: Path) -> None:
    """On the same inputs: its effect is as small as it is; and what is large acts on the small one's."""
    left = adapter(tmp_path / "a", seed=0)
    draw = torch.Generator().manual_seed(1)
    right = with_B(tmp_path / "b", left, lambda B: 0.05 * torch.randn(B.shape, generator=draw))
    found = verdict(left, right)
    assert found.effect_on_left == pytest.approx(0.05, abs=0.01) and found.effect_on_right == pytest.approx(20, rel=0.2)
    (line,) = verdicts([found])
    assert f"effect on the inputs of the first {found.effect_on_left:.2g}, on those of the second" in line


def test_updates_of_other_sites_leave_each_other_alone(tmp_path: Path) -> None:
    """Each is 0 where the other is not."""
    left, right = (with_zeros(tmp_path / f"{zero}", adapter(tmp_path / f"whole-{zero}", seed=0), zero) for zero in "qv")
    found = verdict(left, right)
    assert (found.verdict, found.cosine, found.effect_on_left, found.effect_on_right) == ("apart", 0, 0, 0)
    (line,) = verdicts([found])
    assert "nan" not in line


def with_zeros(folder: Path, source: Path, projection: str) -> Path:
    """The same adapter, with a B of 0 at one projection."""
    tensors = load_file(source / "adapter_model.safetensors")
    return write(folder, {n: 0 * one if f"{projection}_proj.lora_B" in n else one for n, one in tensors.items()})


def test_an_update_of_0_is_nothing_to_merge(tmp_path: Path) -> None:
    left = adapter(tmp_path / "a", seed=0)
    found = verdict(left, with_B(tmp_path / "zero", left, lambda B: 0 * B))
    assert list(verdicts([found])) == [f"{found.left} + {found.right}: nothing to merge: a ΔW is 0."]


def test_the_section_has_a_line_and_a_row_for_each_pair(tmp_path: Path) -> None:
    left, right = adapter(tmp_path / "a", seed=0), adapter(tmp_path / "b", seed=1)
    lines = section([verdict(left, right), verdict(left, left)]).splitlines()
    assert sum(line.startswith("- ") for line in lines) == 2
    assert sum(line.startswith("| ") for line in lines) == 4
