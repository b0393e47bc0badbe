"""Layers and names of modules: whatever wraps the model, in several towers, and in lists of lists."""

from collections.abc import Iterable
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaw.run.places import layers_and_names, remarks_on_layers, unwrapped
from deltaw.run.same_modules import paired


def names(pattern: str, numbers: Iterable[int], *projections: str) -> list[str]:
    """A name for each number and projection, which replace n and p in braces."""
    return [pattern.format(n=n, p=p) for n, p in product(numbers, projections)]


LLAMA = [*names("model.layers.{n}.self_attn.{p}_proj", range(4), *"qkvo"), "lm_head"]
MOE = names("layers.{n}.self_attn.{p}_proj", range(3), *"qv") + [
    f"layers.{n}.mlp.experts.{expert}.{p}_proj" for n in range(3) for expert in range(2) for p in ("up", "down")
]
BERT = names("encoder.layer.{n}.{p}", range(3), "attention.self.query", "attention.output.dense", "output.dense")
T5 = [
    *names("encoder.block.{n}.layer.0.SelfAttention.{p}", range(3), *"qv"),
    *names("encoder.block.{n}.layer.1.DenseReluDense.{p}", range(3), "wi", "wo"),
    *names("decoder.block.{n}.layer.0.SelfAttention.{p}", range(2), *"qv"),
    *names("decoder.block.{n}.layer.1.EncDecAttention.{p}", range(2), *"qv"),
]
WHISPER = names("encoder.layers.{n}.self_attn.{p}_proj", range(3), *"qv") + [
    f"decoder.layers.{n}.{attention}.{p}_proj"
    for n, attention, p in product(range(3), ("self_attn", "encoder_attn"), "qv")
]
UNET = [
    f"{block}.transformer_blocks.0.{attention}.{p}"
    for block in [
        *(f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)),
        "mid_block.attentions.0",
        *(f"up_blocks.{i}.attentions.{j}" for i in range(1, 3) for j in range(3)),
    ]
    for attention in ("attn1", "attn2")
    for p in ("to_q", "to_k", "to_v", "to_out.0")
]
FLUX = [
    *names("transformer_blocks.{n}.attn.{p}", range(3), "to_q", "to_out.0", "add_q_proj"),
    *names("single_transformer_blocks.{n}.{p}", range(4), "attn.to_q", "proj_out", "norm.linear"),
    *("x_embedder", "proj_out"),
]
SEQUENTIAL = names("{n}.attn.{p}_proj", range(3), *"qv")
TEXT_AND_IMAGES = [
    *names("language_model.layers.{n}.self_attn.{p}_proj", range(4), *"qv"),
    *names("vision_tower.encoder.layers.{n}.self_attn.{p}_proj", range(3), *"qv"),
    "multi_modal_projector.linear_1",
]
MODELS = [LLAMA, MOE, BERT, T5, WHISPER, UNET, FLUX, TEXT_AND_IMAGES]

# What sentence-transformers, nn.Sequential, torch.compile, FSDP, DDP, Lightning and people's own classes put in front.
WRAPPERS = st.one_of(
    st.sampled_from(
        "0.auto_model. 0. 3.model. model. model.model. module. _orig_mod. base_model.model. _fsdp_wrapped_module. "
        "text_model. language_model. model.language_model. layers.0. layers.0.model. net.1. blocks.0.inner. "
        "encoder. backbone.encoder. transformer.".split()
    ),
    st.lists(st.from_regex(r"[a-z]{3,6}_(own|net)", fullmatch=True), min_size=1, max_size=3).map(
        lambda parts: "".join(f"{part}." for part in parts)
    ),
)


@given(st.sampled_from(MODELS), WRAPPERS)
def test_a_wrapper_in_front_of_all_names_changes_no_site(modules: list[str], wrapper: str) -> None:
    sites = layers_and_names(modules)
    wrapped = layers_and_names([unwrapped(wrapper + module) for module in modules])
    assert list(wrapped.values()) == list(sites.values())


@pytest.mark.parametrize("wrapper", ["", "0.", "model.", "_orig_mod.", "own.net.", "encoder.1."])
def test_an_unnamed_list_holds_the_layers_where_its_numbers_vary(wrapper: str) -> None:
    sites = layers_and_names([unwrapped(wrapper + module) for module in SEQUENTIAL])
    assert list(sites.values()) == [(n, p) for n in (1, 2, 3) for p in "qv"]


@given(st.sampled_from([LLAMA, MOE, BERT, UNET, FLUX]), WRAPPERS)
def test_a_wrapper_around_one_of_two_models_hides_no_module(modules: list[str], wrapper: str) -> None:
    wrapped = {unwrapped(wrapper + module): module for module in modules}
    assert paired(modules, list(wrapped)) == wrapped
    assert paired(list(wrapped), modules) == {module: name for name, module in wrapped.items()}


PARTS = st.sampled_from("0 1 2 layers layer block h experts encoder decoder vision_tower attn q_proj q to_out".split())


@given(st.sets(st.lists(PARTS, min_size=1, max_size=6).map(".".join), max_size=30))
def test_two_modules_never_become_one_site(modules: set[str]) -> None:
    sites = layers_and_names(modules)
    assert sites.keys() == modules
    assert len(set(sites.values())) == len(modules)


@given(*2 * [st.sets(st.lists(PARTS, min_size=1, max_size=6).map(".".join), max_size=30)])
def test_a_module_has_at_most_one_partner_whose_name_ends_alike(left: set[str], right: set[str]) -> None:
    pairs = paired(left, right)
    assert pairs.keys() <= right and set(pairs.values()) <= left and len(set(pairs.values())) == len(pairs)
    assert all(one.split(".")[-1] == other.split(".")[-1] for one, other in pairs.items())


@pytest.mark.parametrize(
    ("pattern", "projections"),
    [
        ("model.layers.{n}.self_attn.{p}_proj", "qv"),
        ("0.auto_model.encoder.layer.{n}.attention.self.{p}", ["query", "value"]),
        ("encoder.block.{n}.layer.{p}", ["0.SelfAttention.q", "1.DenseReluDense.wo"]),
        ("model.layers.{n}.mlp.experts.{p}.up_proj", "01"),
        ("layers.0.model.layers.{n}.self_attn.{p}_proj", "qv"),
        ("stack.{n}.attn.{p}_proj", "qv"),
    ],
)
def test_one_layer_alone_keeps_its_number(pattern: str, projections: Iterable[str]) -> None:
    assert {layer for layer, _ in layers_and_names(names(pattern, [27], *projections)).values()} == {28}


def test_experts_and_lists_within_a_layer_are_no_layers() -> None:
    modules = [*MOE, "layers.1.mlp.fc.0", "layers.1.mlp.fc.2", "layers.1.ff.net.0.proj"]
    assert {name: layers_and_names(modules)[name] for name in modules[-4:]} == {
        "layers.2.mlp.experts.1.down_proj": (3, "mlp.experts.1.down_proj"),
        "layers.1.mlp.fc.0": (2, "fc.0"),
        "layers.1.mlp.fc.2": (2, "fc.2"),
        "layers.1.ff.net.0.proj": (2, "proj"),
    }


def test_modules_outside_of_layers_go_by_the_parts_that_tell_them_apart() -> None:
    sites = layers_and_names([*LLAMA, "a.pooler.dense", "a.head.dense", "mm_projector.0", "mm_projector.2"])
    outside = [site for site in sites.values() if site[0] == 0]
    assert outside == [
        (0, name) for name in ("lm_head", "pooler.dense", "head.dense", "mm_projector.0", "mm_projector.2")
    ]


def test_a_projection_at_two_places_goes_by_its_path() -> None:
    hybrid = names("layers.{n}.self_attn.{p}_proj", [1, 3], *"qo") + names(
        "layers.{n}.linear_attn.{p}", [0, 2], "out_proj"
    )
    assert set(layers_and_names(hybrid).values()) == {
        *[(layer, name) for layer in (2, 4) for name in ("q", "self_attn.o_proj")],
        *[(layer, "linear_attn.out_proj") for layer in (1, 3)],
    }


def test_encoder_and_decoder_have_layers_of_their_own() -> None:
    sites = layers_and_names(T5)
    assert sites["encoder.block.2.layer.0.SelfAttention.q"] == (3, "encoder.q")
    assert sites["decoder.block.1.layer.0.SelfAttention.q"] == (2, "decoder.layer.0.SelfAttention.q")
    assert sites["decoder.block.1.layer.1.EncDecAttention.q"] == (2, "decoder.layer.1.EncDecAttention.q")
    assert layers_and_names(WHISPER)["decoder.layers.0.encoder_attn.v_proj"] == (1, "decoder.encoder_attn.v_proj")


def test_blocks_of_a_unet_are_numbered_through_from_below_to_above() -> None:
    sites = layers_and_names(UNET)
    assert {layer for layer, _ in sites.values()} == set(range(1, 14))
    assert sites["down_blocks.1.attentions.1.transformer_blocks.0.attn2.to_q"] == (4, "attn2.to_q")
    assert sites["mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0"] == (7, "attn1.to_out.0")
    assert {name for _, name in sites.values()} == {
        f"{attention}.{p}" for attention in ("attn1", "attn2") for p in ("to_q", "to_k", "to_v", "to_out.0")
    }
    assert remarks_on_layers({module: layer for module, (layer, _) in sites.items()}) == [
        "the layers are numbered through: 1 to 6 are down_blocks.0.attentions.0.transformer_blocks.0 to "
        "down_blocks.2.attentions.1.transformer_blocks.0, 7 is mid_block.attentions.0.transformer_blocks.0, "
        "8 to 13 are up_blocks.1.attentions.0.transformer_blocks.0 to up_blocks.2.attentions.2.transformer_blocks.0"
    ]


def test_single_blocks_of_flux_follow_the_others() -> None:
    sites = layers_and_names(FLUX)
    assert sites["transformer_blocks.2.attn.to_q"] == (3, "q")
    assert sites["single_transformer_blocks.0.attn.to_q"] == (4, "q")
    assert sites["single_transformer_blocks.3.proj_out"] == (7, "proj_out")
    assert sites["x_embedder"] == (0, "x_embedder") and sites["proj_out"] == (0, "proj_out")


def test_a_tower_of_images_has_names_of_its_own_and_the_text_keeps_its_letters() -> None:
    sites = layers_and_names(TEXT_AND_IMAGES)
    assert sites["language_model.layers.3.self_attn.q_proj"] == (4, "q")
    assert sites["vision_tower.encoder.layers.2.self_attn.q_proj"] == (3, "vision_tower.q")
    assert (
        "vision_tower.encoder.layers" in remarks_on_layers({module: layer for module, (layer, _) in sites.items()})[0]
    )


CAUSAL, OLD, NEW = "model.layers", "language_model.model.layers", "model.language_model.layers"
VISION = "vision_tower.vision_model.encoder.layers"


def modules_of(*stacks: str) -> list[str]:
    return [f"{stack}.{n}.self_attn.q_proj" for stack in stacks for n in range(3)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        *product([[CAUSAL], [OLD], [NEW]], [[CAUSAL, ""], [OLD, VISION], [NEW, f"model.{VISION}"]]),
        ([OLD, VISION], [NEW, f"model.{VISION}"]),
        ([CAUSAL], ["video_llava.language_model.layers", "video_llava.video_tower.layers"]),
        (["bert.encoder.layer"], ["0.auto_model.encoder.layer"]),
        (["encoder.layers", "decoder.layers"], ["model.encoder.layers", "model.decoder.layers"]),
        (["decoder.layers"], ["model.decoder.layers", "model.encoder.layers"]),
        (["a.layers", "b.layers"], ["own.a.layers", "own.b.layers"]),
    ],
)
def test_a_tower_is_found_again_under_another_class(left: list[str], right: list[str]) -> None:
    same = dict(zip(modules_of(*right), modules_of(*left), strict=False))
    assert paired(modules_of(*left), modules_of(*right)) == same
    assert paired(modules_of(*right), modules_of(*left)) == {module: name for name, module in same.items()}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (CAUSAL, VISION),
        ("encoder.block", "decoder.block"),
        ("query_model.layers", "passage_model.layers"),
        ("0.encoder.layer", "1.encoder.layer"),
        ("down_blocks", "up_blocks"),
        ("transformer_blocks", "single_transformer_blocks"),
        ("thinker.model.layers", "talker.model.layers"),
        ("model.layers", "model.audio_tower.layers"),
    ],
)
def test_two_towers_are_never_taken_for_one(left: str, right: str) -> None:
    assert paired(modules_of(left), modules_of(right)) == {}


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        ("_orig_mod.model.layers.0.q_proj", "model.layers.0.q_proj"),
        ("model.layers.0._orig_mod.self_attn._fsdp_wrapped_module.q_proj", "model.layers.0.self_attn.q_proj"),
        ("module.module.layers.0._checkpoint_wrapped_module.q_proj", "layers.0.q_proj"),
        ("lit_model.base_model.model.model.layers.0.q_proj", "model.layers.0.q_proj"),
        ("layers.0.my_orig_mod.q_proj", "layers.0.my_orig_mod.q_proj"),
    ],
)
def test_what_compiling_and_sharding_add_is_no_part_of_a_name(stored: str, name: str) -> None:
    assert unwrapped(stored) == name
