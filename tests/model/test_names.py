"""The names of q, k and v in every architecture of the table, and what splitting a fused layer leaves unchanged."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from deltaw.errors import UserError
from deltaw.model.fused import fused_layers
from deltaw.model.names import ARCHITECTURES as TABLE
from deltaw.model.names import is_conv1d, widths
from deltaw.model.projections import projections
from deltaw.model.split import split
from tests.support.architectures import ARCHITECTURES, FUSED, LAYERS, WIDTH, Architecture
from tests.support.rows import logits

every = pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=ARCHITECTURES)
fused = pytest.mark.parametrize("architecture", FUSED.values(), ids=FUSED)


def test_every_row_of_the_table_has_a_tiny_model() -> None:
    assert {architecture.model_type for architecture in ARCHITECTURES.values()} == TABLE.keys()


@every
def test_every_attention_has_one_q_and_one_v(architecture: Architecture) -> None:
    model = architecture.build()
    split(model)
    found = projections(model, ["q", "k", "v", "o"])
    assert Counter(found.values()) == dict.fromkeys("qkvo", architecture.attentions)
    rows = {"q": architecture.rows_q, "k": architecture.rows_v, "v": architecture.rows_v, "o": WIDTH}
    columns = {"q": WIDTH, "k": WIDTH, "v": WIDTH, "o": architecture.rows_q}
    for module, letter in found.items():
        assert widths(model.get_submodule(module)) == (columns[letter], rows[letter])


@fused
def test_the_parts_of_a_layer_are_its_rows_to_the_bit(architecture: Architecture) -> None:
    whole, model = architecture.build(), architecture.build()
    split(model)
    layouts = fused_layers(whole)
    assert len(layouts) == LAYERS and not fused_layers(model)
    for module, layout in layouts.items():
        layer: Any = whole.get_submodule(module)
        weight = layer.weight.T if is_conv1d(layer) else layer.weight
        for letter, rows in layout.rows.items():
            part: Any = model.get_submodule(f"{module}.{letter}_proj")
            of_letter = [row for part_rows in rows for row in part_rows]
            assert torch.equal(part.weight, weight[of_letter])
            assert (part.bias is None) == (layer.bias is None)
            assert layer.bias is None or torch.equal(part.bias, layer.bias[of_letter])
            assert not any(parameter.requires_grad for parameter in part.parameters())
        every_row = sorted(row for rows in layout.rows.values() for part_rows in rows for row in part_rows)
        assert every_row == list(range(len(weight)))


@fused
@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-12), (torch.float32, 1e-5)], ids=str)
def test_splitting_leaves_the_logits(architecture: Architecture, dtype: torch.dtype, rounding: float) -> None:
    model = architecture.build(dtype=dtype)
    before = {tokens: logits(model, tokens) for tokens in (1, 7, 128)}
    split(model)
    for tokens, expected in before.items():
        difference = (logits(model, tokens) - expected).abs().max() / expected.abs().max()
        assert difference <= rounding


def disturbed(model: PreTrainedModel, module: str, position: int, tokens: int = 6) -> list[bool]:
    """At which positions the logits notice that `module` gives something else at `position`."""

    def disturb(_layer: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[:, position] += torch.linspace(1, 2, output.shape[-1], dtype=output.dtype)
        return changed

    before = logits(model, tokens)
    with model.get_submodule(module).register_forward_hook(disturb):
        after = logits(model, tokens)
    return [not torch.allclose(one, other, atol=1e-9) for one, other in zip(before[0], after[0], strict=True)]


ENCODERS = {name: found for name, found in ARCHITECTURES.items() if found.task == "classification"}
DECODERS = {name: found for name, found in ARCHITECTURES.items() if found.task != "classification"}


@pytest.mark.parametrize("architecture", DECODERS.values(), ids=DECODERS)
def test_layers_named_q_k_and_v_in_a_decoder_act_as_such(architecture: Architecture) -> None:
    """In its last layer position 0 attends to itself alone: neither its q nor its k matter there."""
    model = architecture.build(dtype=torch.float64)
    split(model)
    cross = ("EncDecAttention", "encoder_attn")
    last = {
        letter: module
        for module, letter in projections(model, ["q", "k", "v"]).items()  # of one letter, the last
        if module.split(".")[-2] not in cross
    }
    noticed = {(letter, at): disturbed(model, last[letter], at) for letter in "qkv" for at in (0, 3)}
    assert noticed == {
        ("q", 0): [False] * 6,
        ("q", 3): [False, False, False, True, False, False],
        ("k", 0): [False] + [True] * 5,
        ("k", 3): [False, False, False, True, True, True],
        ("v", 0): [True] * 6,
        ("v", 3): [False, False, False, True, True, True],
    }


@pytest.mark.parametrize("architecture", ENCODERS.values(), ids=ENCODERS)
def test_layers_named_q_k_and_v_in_an_encoder_act_as_such(architecture: Architecture) -> None:
    """In its last layer q matters to its own position alone; where there is one position, neither q nor k does."""
    model = architecture.build("masked", dtype=torch.float64)
    split(model)
    last = {letter: module for module, letter in projections(model, ["q", "k", "v"]).items()}
    of_six = {letter: disturbed(model, last[letter], 3) for letter in "qkv"}
    assert of_six == {"q": [False, False, False, True, False, False], "k": [True] * 6, "v": [True] * 6}
    of_one = {letter: disturbed(model, last[letter], 0, tokens=1) for letter in "qkv"}
    assert of_one == {"q": [False], "k": [False], "v": [True]}


@pytest.mark.parametrize("name", ["llama", "phi", "bart", "bert", "gptj"])
def test_an_architecture_outside_the_table_is_read_by_its_names(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    architecture = ARCHITECTURES[name]
    model = architecture.build()
    known = projections(model, ["q", "v"])
    monkeypatch.setattr(type(model.config), "model_type", "unheard-of")
    assert projections(model, ["q", "v"]) == known


def test_a_model_without_known_names_is_refused_with_the_children_of_attention_and_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = ARCHITECTURES["gpt2"].build()
    monkeypatch.setattr(type(model.config), "model_type", "unheard-of")
    split(model)
    with pytest.raises(
        UserError,
        match=r"layer 1 of GPT2LMHeadModel has 0 modules for 'q' .*transformer\.h\.0\.attn holds \['c_attn', 'c_proj'\]"
        r".*model\.projections\.q=, .*fuses q, k and v can be adapted in .*gpt_neox",
    ):
        projections(model)


class Block(nn.Module):
    """A layer of no architecture: q and v under names of its own, and twice over."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.ModuleDict({name: nn.Linear(4, 4) for name in ("to_q", "to_v")})
        self.experts = nn.ModuleList(nn.ModuleDict({"q_proj": nn.Linear(4, 4)}) for _ in range(2))


def test_names_can_be_given_and_two_of_a_kind_in_one_layer_are_none() -> None:
    model = nn.ModuleDict({"layers": nn.ModuleList([Block()])})
    assert projections(model, names={"q": "to_q", "v": "to_v"}) == {
        "layers.0.attention.to_q": "q",
        "layers.0.attention.to_v": "v",
    }
    with pytest.raises(
        UserError, match=r"layer 1 of ModuleDict has 0 modules for 'q'.*attention holds \['to_q', 'to_v'\]"
    ):
        projections(model, names={"v": "to_v"})


def test_other_layers_are_wanted_by_how_their_names_end() -> None:
    model = ARCHITECTURES["gpt2"].build()
    assert set(projections(model, ["mlp.c_proj"]).values()) == {"c_proj"}
    assert set(projections(model, ["c_proj"]).values()) == {"c_proj", "o"}
    assert list(projections(model, ["c_attn"])) == ["transformer.h.0.attn.c_attn", "transformer.h.1.attn.c_attn"]
    with pytest.raises(
        UserError, match=r"arms\.projections has 'gate_proj', .*choose from \['c_attn', 'c_fc', 'c_proj', 'o'\]"
    ):
        projections(model, ["gate_proj"])


@every
def test_all_linear_is_every_linear_layer_inside_the_layers(architecture: Architecture) -> None:
    model = architecture.build()
    split(model, ["all-linear"])
    found = projections(model, ["all-linear"])
    linear = {name for name, layer in model.named_modules() if isinstance(layer, nn.Linear) or is_conv1d(layer)}
    outside = {name.rpartition(".")[2] for name in linear - found.keys()}
    heads = {"lm_head", "score", "classifier", "pre_classifier", "dense", "out_proj", "embeddings_project", "embed_out"}
    assert outside <= heads | {"pos_key_proj", "pos_query_proj"}
    assert Counter(found.values()) >= Counter(dict.fromkeys("qkvo", architecture.attentions))
