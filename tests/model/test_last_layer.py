"""The end of the last layer, run for some tokens alone, gives them what it gives them among all."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import (
    AutoModelForSeq2SeqLM,
    NllbMoeConfig,
    PreTrainedModel,
    SwitchTransformersConfig,
)

from deltaw.model.last_layer import at, tail_of
from deltaw.model.projections import projections
from deltaw.model.split import split
from tests.support.architectures import ARCHITECTURES
from tests.support.hybrids import CONFIGS, build

GENERATORS = [name for name, found in ARCHITECTURES.items() if found.task != "classification"]


def with_sites(model: PreTrainedModel, *wanted: str) -> tuple[PreTrainedModel, list[str]]:
    """A base as a run prepares it, and the modules that arms adapt."""
    model.config.use_cache = model.config.get_text_config().use_cache = False
    split(model, wanted)
    return model.requires_grad_(False), [*projections(model, wanted)]


def names_of(model: nn.Module, tail: Any) -> list[str]:
    names = {module: name for name, module in model.named_modules()}
    return [names[module] for module in tail]


def outcome(model: PreTrainedModel, module: str, places: Tensor, tail: Any) -> list[Tensor]:
    """Logits of the tokens at `places`, and the gradient of some loss of them by a weight."""
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids.flip(0)} if model.config.is_encoder_decoder else {})
    weight = model.get_submodule(module).get_parameter("weight").requires_grad_()
    with at(tail, places):
        logits = model(**inputs).logits.flatten(0, 1)[places]
    return [logits.detach(), *torch.autograd.grad(logits.square().sum(), weight)]


@pytest.mark.parametrize("name", [*GENERATORS, *CONFIGS])
def test_tokens_alone_get_the_logits_and_gradients_that_they_get_among_all(name: str) -> None:
    base = ARCHITECTURES[name].build() if name in ARCHITECTURES else build(name)
    model, modules = with_sites(base.double(), "q", "v")
    tail, places = tail_of(model, modules), torch.tensor([7, 1, 4])
    assert bool(tail) is (name not in ("t5", "lfm2"))
    for module in (modules[0], modules[-1]):
        # Some norms compute in float32 whatever they are given.
        for one, other in zip(*(outcome(model, module, places, some) for some in (tail, ())), strict=True):
            assert_close(one, other, rtol=1e-6, atol=1e-7 * other.abs().max().item())


@pytest.mark.parametrize(
    ("wanted", "alone"),
    [
        (["q", "v"], ["self_attn.o_proj", "mlp"]),
        (["o", "up_proj"], ["self_attn.q_proj", "mlp.gate_proj", "mlp.down_proj"]),
    ],
)
def test_a_tail_holds_no_adapted_module_and_nothing_that_other_tokens_read(wanted: list[str], alone: list[str]) -> None:
    model, modules = with_sites(ARCHITECTURES["llama"].build(), *wanted)
    assert names_of(model, tail_of(model, modules)) == [f"model.layers.1.{name}" for name in alone]


def test_a_layer_that_other_layers_follow_has_no_tail_behind_its_attention() -> None:
    model, modules = with_sites(ARCHITECTURES["llama"].build(), "q", "v")
    assert not tail_of(model, [module for module in modules if "layers.0" in module])


class Summed(nn.Module):
    """Gives each token a sum over all tokens before it."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.inner(x.cumsum(1))
        return made


def test_a_module_that_mixes_tokens_is_found_out() -> None:
    model, modules = with_sites(ARCHITECTURES["llama"].build(), "q", "v")
    layer = model.get_submodule("model.layers.1")
    layer.mlp = Summed(layer.get_submodule("mlp"))
    assert names_of(model, tail_of(model, modules)) == ["model.layers.1.mlp.inner"]


def test_a_module_that_does_not_run_is_left_whole() -> None:
    model, modules = with_sites(ARCHITECTURES["llama"].build(), "q", "v")
    model.get_submodule("model.layers.1").idle = nn.Linear(4, 4)
    assert names_of(model, tail_of(model, modules)) == ["model.layers.1.self_attn.o_proj", "model.layers.1.mlp"]


@pytest.mark.parametrize("kind", [SwitchTransformersConfig, NllbMoeConfig])
def test_experts_with_a_capacity_read_all_tokens(kind: Any) -> None:
    small = dict.fromkeys(("d_model", "d_ff", "decoder_ffn_dim", "encoder_ffn_dim"), 16) | {"d_kv": 8, "vocab_size": 40}
    layers = dict.fromkeys(("num_layers", "num_decoder_layers", "decoder_layers", "encoder_layers"), 2)
    heads = dict.fromkeys(("num_heads", "decoder_attention_heads", "encoder_attention_heads"), 2)
    sparse = dict.fromkeys(("num_sparse_encoder_layers", "num_sparse_decoder_layers"), 1) | {"num_experts": 2}
    steps = dict.fromkeys(("decoder_sparse_step", "encoder_sparse_step"), 1)
    config = kind(**small, **layers, **heads, **sparse, **steps, use_cache=False)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    modules = [name for name, _ in model.named_modules() if name.endswith(("q_proj", "v_proj", ".q", ".v"))]
    assert modules and not tail_of(model, modules)


@pytest.mark.parametrize(("labels", "computed"), [([0, 4, 9], 3), ([*range(9)], 10)])
def test_the_tail_computes_the_tokens_asked_for_or_nearly_all_whole(labels: list[int], computed: int) -> None:
    model, modules = with_sites(ARCHITECTURES["llama"].build(), "q", "v")
    seen: list[int] = []
    mlp = model.get_submodule("model.layers.1.mlp.gate_proj")
    mlp.register_forward_hook(lambda _, args, output: seen.append(output[..., 0].numel()))
    outcome(model, modules[0], torch.tensor(labels), tail_of(model, modules))
    assert seen[-1] == computed
