"""The arms that a config asks for."""

from typing import Any

import pytest

from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.lora.arms import arms_from

QV = {"q_proj": 2, "v_proj": 3}


def listed(*entries: Any, **shorthand: Any) -> list[Arm]:
    given: dict[str, Any] = {"ranks": None, "seeds": None, "lrs": None, "controls": []} | shorthand
    return arms_from(**given, alpha=16.0, scaling="alpha/r", default_lr=2e-3, dropout=0.1, listed=entries)


def test_names_hold_everything_that_differs_between_arms() -> None:
    arms = arms_from([8, 64], [0, 1], [2e-3, 5e-3], ["shuffled"], 16.0, "alpha/r", default_lr=2e-3)
    assert len({a.name for a in arms}) == len(arms) == 16
    assert [a.name for a in arms[:4]] == ["r8-s0", "r8-s0-lr0.005", "r64-s0", "r64-s0-lr0.005"]
    assert arms[-1].name == "r64-s1-lr0.005-shuffled"


def test_combinations_equal_the_list_of_their_arms() -> None:
    short = arms_from([8, 64], [0, 1], [2e-3, 5e-3], ["random"], 16.0, "alpha/r", default_lr=2e-3, dropout=0.1)
    entries = [
        {"rank": rank, "seed": seed, "lr": lr, "control": control}
        for control in (None, "random")
        for seed in (0, 1)
        for rank in (8, 64)
        for lr in (2e-3, 5e-3)
    ]
    assert listed(*entries) == short
    assert listed({"rank": 8}, {"rank": 64}) == arms_from(None, None, None, [], 16.0, "alpha/r", 2e-3, dropout=0.1)


def test_a_name_holds_only_what_differs_from_the_defaults() -> None:
    arms = listed(
        {"rank": 8, "alpha": 16, "scaling": "alpha/r", "lr": 2e-3, "rank_pattern": {}, "control": None},
        {"rank": 8, "alpha": 32, "seed": 1, "lr": 1e-3, "scaling": "constant", "control": "shuffled"},
        {"rank": 8, "alpha": 0.5, "name": "half"},
    )
    assert [(arm.name, arm.variant) for arm in arms] == [
        ("r8-s0", ""),
        ("r8-s1-lr0.001-a32-constant-shuffled", "a32-constant"),
        ("half", "a0.5"),
    ]
    other = arms_from(None, None, None, [], 16.0, "rslora", 2e-3, listed=[{"rank": 8, "scaling": "alpha/r"}])
    assert other[0].name == "r8-s0-alpha-r"


def test_different_patterns_or_orders_of_their_keys_give_different_names() -> None:
    patterns = [{"rank_pattern": QV}, {"alpha_pattern": QV}, {"rank_pattern": dict(reversed(QV.items()))}]
    arms = listed({"rank": 8}, *({"rank": 8, **pattern} for pattern in patterns))
    assert len({arm.name for arm in arms}) == 4
    assert arms[1].name == "r8-s0-p" + arms[1].variant[1:] and len(arms[1].variant) == 6
    assert [(arm.rank_of("layers.0.v_proj"), arm.scale_of("layers.0.v_proj")) for arm in arms] == [
        (8, 2),
        (3, 16 / 3),
        (8, 3 / 8),
        (3, 16 / 3),
    ]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"rnk": 8, "rank": 4}, r"\[1\] has the key 'rnk': choose from rank, seed"),
        ({"alpha": 8}, r"\[1\]=\{'alpha': 8\} has no rank: give it one"),
        (8, r"\[1\]=8 has no rank"),
        ({"rank": 0}, r"\[1\].rank=0: a rank is a whole number of at least 1"),
        ({"rank": "8"}, r"\[1\].rank='8': a rank"),
        ({"rank": True}, r"\[1\].rank=True: a rank"),
        ({"rank": 8, "seed": 0.5}, r"\[1\].seed=0.5: a seed is a whole number"),
        ({"rank": 8, "lr": float("nan")}, r"\[1\].lr=nan: a learning rate is a finite number above 0"),
        ({"rank": 8, "alpha": -1}, r"\[1\].alpha=-1: alpha is a finite number above 0"),
        ({"rank": 8, "scaling": "beta"}, r"\[1\].scaling='beta': choose from constant, alpha/r, rslora"),
        ({"rank": 8, "control": "noise"}, r"\[1\].control='noise': choose from shuffled"),
        ({"rank": 8, "rank_pattern": {"q_proj": 0}}, r"\[1\].rank_pattern=\{'q_proj': 0\}: give ranks by names"),
        ({"rank": 8, "rank_pattern": ["q_proj"]}, r"\[1\].rank_pattern=\['q_proj'\]: give ranks"),
        ({"rank": 8, "alpha_pattern": {"q_(proj": 4}}, r"\[1\].alpha_pattern=\{'q_\(proj': 4\}: give alphas"),
        ({"rank": 8, "name": "../x"}, r"\[1\].name='../x': a name is a directory's"),
        ({"rank": 8, "name": ".."}, r"\[1\].name='..': a name is a directory's"),
        ({"rank": 8, "name": "r2-s0-shadow1"}, r"\[1\].name='r2-s0-shadow1': .*an end as -shadow1 is a shadow's"),
        ({"rank": 2}, r"arms.list\[0\] and arms.list\[1\] are both r2-s0: give one of them another name"),
        ({"rank": 8, "name": "r2-s0"}, r"arms.list\[0\] and arms.list\[1\] are both r2-s0"),
    ],
)
def test_a_wrong_entry_is_refused_by_its_number(entry: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        listed({"rank": 2}, entry)


def test_a_list_is_neither_empty_nor_together_with_what_it_replaces() -> None:
    nothings: list[Any] = [[], {}, "r8", 8]
    for nothing in nothings:
        with pytest.raises(UserError, match=r"arms.list=.* is no list of arms: give at least one, as \[\{rank: 8\}\]"):
            arms_from(None, None, None, [], 16.0, "alpha/r", 2e-3, listed=nothing)
    for besides, way in ({"seeds": [1]}, "arms.seeds=null"), ({"controls": ["random"]}, r"arms.controls=\[\]"):
        with pytest.raises(UserError, match=f"leave one of the two out, as by {way}"):
            listed({"rank": 8}, **besides)
