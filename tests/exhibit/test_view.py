"""The layers and projections that are shown."""

import pytest

from deltaw.errors import UserError
from deltaw.exhibit.view import choose_layers, choose_projections, complete_layers
from deltaw.run.adapter import Site


def sites(*names: str) -> list[Site]:
    """The sites of layers from 1 on: in each, the projections that its name lists."""
    return [
        Site(layer, projection, f"layers.{layer}.{projection}")
        for layer, projections in enumerate(names, start=1)
        for projection in projections.split()
    ]


LAYERS = {
    **{1: [1], 2: [1, 2], 3: [1, 2, 3], 4: [1, 3, 4], 8: [1, 3, 5, 8], 12: [1, 4, 8, 12]},
    **{24: [1, 8, 16, 24], 28: [1, 9, 19, 28], 96: [1, 32, 64, 96]},
}


@pytest.mark.parametrize(("depth", "layers"), LAYERS.items())
def test_by_default_the_first_layer_and_the_thirds_of_the_depth_are_shown(depth: int, layers: list[int]) -> None:
    assert choose_layers(list(range(1, depth + 1)), []) == layers


def test_depth_counts_the_layers_that_are_adapted() -> None:
    assert choose_layers([10, 11, 12, 13, 14, 15], []) == [10, 11, 13, 15]


def test_layers_can_be_chosen_in_any_order_where_they_have_all_projections() -> None:
    assert choose_layers([1, 2, 3], [3, 1]) == [3, 1]
    with pytest.raises(UserError, match=r"layers=\[1, 7\].* in the layers \[1, 2, 3\], not in \[7\]"):
        choose_layers([1, 2, 3], [1, 7])


def test_only_layers_with_all_projections_are_complete() -> None:
    assert complete_layers(sites("o", "o", "o up_proj", "o up_proj"), ["o", "up_proj"]) == [3, 4]
    with pytest.raises(UserError, match=r"no layer has all of the projections \['o', 'up_proj'\]: choose fewer"):
        complete_layers(sites("o", "o", "up_proj", "up_proj"), ["o", "up_proj"])


def test_projections_are_shown_in_the_order_in_which_they_are_asked_for() -> None:
    assert choose_projections(sites("q v o"), ["o", "q"]) == (["o", "q"], [])
    assert choose_projections(sites("encoder.0.q v decoder.0.q"), ["v", "q"])[0] == ["v", "encoder.0.q", "decoder.0.q"]


def test_a_projection_that_no_layer_adapts_is_left_out() -> None:
    assert choose_projections(sites("q v"), ["k", "v"]) == (
        ["v"],
        ["projections: k is left out, because no layer adapts it"],
    )
    with pytest.raises(UserError, match=r"projections=\['k'\]: the adapters have \['q', 'v'\]"):
        choose_projections(sites("q v"), ["k"])


def test_all_linear_is_what_most_layers_adapt_attention_first() -> None:
    assert choose_projections(sites("up_proj v q", "q", "q v up_proj", "down_proj q v up_proj"), ["all-linear"]) == (
        ["q", "v", "up_proj"],
        ["projections: ['down_proj'] are left out, because not all compared layers adapt them"],
    )
