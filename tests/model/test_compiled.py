"""Compiled layers compute what the others do, and compile a bounded number of times."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch.testing import assert_close

from deltaw.errors import UserError
from deltaw.lora.attach import attach
from deltaw.lora.layers import Moment, parameters_of, set_moment
from deltaw.lora.shadows import shadows_of
from deltaw.model.compiled import compile_layers
from deltaw.model.projections import projections
from tests.support.architectures import ARCHITECTURES
from tests.support.arms import arm
from tests.support.tiny import ROOT

LENGTHS = (7, 9, 12, 5, 30)
# In a process without the checks of shapes, whose code torch.compile would compile too.
PASSES = "import sys, torch; from tests.model.test_compiled import passes; "
PASSES += "torch.save(passes(sys.argv[1], float(sys.argv[2])), sys.argv[3])"


def passes(backend: str | None, dropout: float) -> tuple[list[torch.Tensor], list[int], int]:
    """Losses and gradients of a base with arms and shadows for rows of several lengths.

    Then the number of graphs after each length, and of breaks in them.
    """
    model: Any = ARCHITECTURES["llama"].build(dtype=torch.float64).train()
    arms = [replace(arm(f"r{rank}-s0", rank), dropout=dropout) for rank in (2, 3)]
    modules = projections(model, ["q", "v"])
    attach(model, modules, arms, shadows=shadows_of(arms, 1))
    for k in range(4):
        for factor in parameters_of(model, k)[1::2]:
            factor.data.normal_(std=0.1, generator=torch.Generator().manual_seed(k))
    model.double()
    if backend:
        compile_layers(model, modules)
        for layer in model.model.layers:
            assert layer._compiled_call_impl is not None
            layer.compile(backend=backend)
    found, graphs = [], []
    signs = torch.tensor([1, -1, 1, 1])[:, None, None]
    for step, length in enumerate(LENGTHS):
        set_moment(model, Moment(step, signs=signs))
        ids = torch.randint(0, 50, (4, length), generator=torch.Generator().manual_seed(step))
        loss = model(input_ids=ids, use_cache=False).logits.square().sum()
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        found += [loss.detach(), *torch.autograd.grad(loss, trained)]
        graphs.append(counters["stats"]["unique_graphs"])
    return found, graphs, sum(counters["graph_break"].values())


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "dropout"), [("aot_eager", 0.0), ("aot_eager", 0.2), ("inductor", 0.0)])
def test_compiled_layers_give_the_same_losses_and_gradients(backend: str, dropout: float, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PASSES, backend, str(dropout), tmp_path / "passes"], cwd=ROOT, check=True)
    compiled, graphs, breaks = torch.load(tmp_path / "passes")
    plain, _, _ = passes(None, dropout)
    error = 1e-12 if backend == "aot_eager" else 1e-5  # the base norms in float32, which inductor rounds otherwise
    for one, other in zip(compiled, plain, strict=True):
        assert_close(one, other, rtol=0, atol=error * max(1, other.abs().max().item()))
    assert graphs[2] == graphs[-1]  # neither a step nor a third length compiles again
    assert bool(breaks) == bool(dropout)


def test_a_machine_without_a_compiler_is_refused() -> None:
    from torch._inductor import config

    with config.patch("cpp.cxx", ("no-such-compiler",)), pytest.raises(UserError, match=r"needs a C\+\+ compiler"):
        compile_layers(torch.nn.Sequential(), [])
