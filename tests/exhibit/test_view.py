"""The layers and projections that are shown."""

import pytest

from deltaw.errors import UserError
from deltaw.exhibit.view import choose_layers, choose_projections, middle_layer, projections_by_layer
from deltaw.run.adapter import Site


def sites(*names: str) -> list[Site]:
    """The sites of layers from 1 on: in each, the projections that its name lists, as q or q=module."""
    return [
        Site(layer, projection.partition("=")[0], f"layers.{layer}.{projection.rpartition('=')[2]}")
        for layer, projections in enumerate(names, start=1)
        for projection in projections.split()
    ]


LAYERS = {
    **{1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 3, 4], 8: [1, 3, 5, 8], 12: [1, 4, 8, 12]},
    **{24: [1, 8, 16, 24], 28: [1, 9, 19, 28], 96: [1, 32, 64, 96]},
}


@pytest.mark.parametrize(("depth", "layers"), LAYERS.items())
def test_by_default_the_first_layer_and_the_thirds_of_the_depth_are_shown(depth: int, layers: list[int]) -> None:
    assert choose_layers({layer: {"q"} for layer in range(1, depth + 1)}, []) == layers


def test_depth_counts_the_layers_that_are_adapted() -> None:
    assert choose_layers({layer: {"q"} for layer in range(10, 16)}, []) == [10, 11, 13, 15]


def test_modules_outside_of_layers_have_no_depth() -> None:
    assert choose_layers({0: {"proj_out"}, 1: {"q"}, 2: {"q", "proj_out"}}, []) == [1, 2]
    assert choose_layers({0: {"score"}}, []) == [0]


def test_layers_can_be_chosen_in_any_order_where_they_have_a_projection() -> None:
    three = {layer: {"q"} for layer in (1, 2, 3)}
    assert choose_layers(three, [3, 1]) == [3, 1]
    with pytest.raises(UserError, match=r"layers=\[1, 7\].* in the layers \[1, 2, 3\], not in \[7\]"):
        choose_layers(three, [1, 7])


def test_each_projection_is_seen_at_some_layer() -> None:
    hybrid = ["in_proj"] * 10
    hybrid[4] = hybrid[5] = hybrid[7] = "q v"
    by_layer = projections_by_layer(sites(*hybrid), ["q", "v", "in_proj"])
    assert choose_layers(by_layer, []) == [1, 3, 6, 7, 10]
    assert choose_layers(by_layer | {6: {"in_proj"}}, []) == [1, 3, 5, 7, 10]


def test_the_middle_layer_has_the_first_projection_and_most_of_the_others() -> None:
    by_layer = projections_by_layer(sites("q", "o up", "q o", "q o", "q o", "q"), ["q", "o", "up"])
    assert middle_layer(by_layer, ["q", "o", "up"]) == 4
    assert middle_layer(by_layer, ["up", "q"]) == 2


def test_projections_are_shown_in_the_order_in_which_they_are_asked_for() -> None:
    assert choose_projections(sites("q v o"), ["o", "q"]) == (["o", "q"], [])
    assert choose_projections(sites("encoder.q v decoder.q"), ["v", "q"])[0] == ["v", "encoder.q", "decoder.q"]


def test_a_module_is_found_by_its_own_name() -> None:
    hybrid = sites("in_proj o=conv.out_proj", "q=self_attn.q_proj self_attn.o_proj")
    assert choose_projections(hybrid, ["in_proj", "out_proj"]) == (["in_proj", "o"], [])
    assert choose_projections(hybrid, ["o_proj", "q_proj"]) == (["self_attn.o_proj", "q"], [])
    assert choose_projections(hybrid, ["o"])[0] == ["o", "self_attn.o_proj"]


def test_a_projection_that_no_layer_adapts_is_left_out() -> None:
    assert choose_projections(sites("q v"), ["k", "v"]) == (
        ["v"],
        ["projections: k is left out, because no layer adapts it"],
    )
    with pytest.raises(UserError, match=r"projections=\['k'\]: the adapters have \['q', 'v'\]$"):
        choose_projections(sites("q v"), ["k"])


def test_a_fused_layer_of_unknown_rows_is_refused_with_what_would_tell_them() -> None:
    with pytest.raises(UserError, match=r"rows of query_key_value are q, k and v: give base=.*\[query_key_value\]"):
        choose_projections(sites("query_key_value"), ["q", "v"])


def test_all_linear_is_what_any_layer_adapts_attention_first() -> None:
    assert choose_projections(sites("up_proj v q", "q", "down_proj q v up_proj"), ["all-linear"]) == (
        ["q", "v", "down_proj", "up_proj"],
        [],
    )


def test_of_many_projections_the_first_are_shown_and_the_others_counted() -> None:
    experts = " ".join(f"experts.{n:02}.up_proj" for n in range(64))
    shown, [sentence] = choose_projections(sites(f"{experts} q"), ["all-linear"])
    assert len(shown) == 12 and shown[:2] == ["q", "experts.00.up_proj"]
    assert sentence.startswith("projections: 53 more, as experts.11.up_proj, ")
