"""Shares in words never promise more than they hold."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaw.report.percent import about, at_least, at_most, kept, parameters, percent


def number(text: str) -> float:
    assert re.fullmatch(r"−?\d+(\.\d+)? %", text), text
    return float(text.removesuffix(" %").replace("−", "-"))


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.12, "12 %"),
        (0.012, "1.2 %"),
        (0.0043, "0.43 %"),
        (-0.003, "−0.30 %"),
        (0.0, "0 %"),
        (1e-7, "0 %"),
        (3.5, "350 %"),
    ],
)
def test_a_share_has_two_digits(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(
    ("share", "limit", "texts"),
    [
        (0.9970, 0.9962, ("99.7 %", "99.6 %")),
        (0.9971, 0.9970, ("99.71 %", "99.70 %")),
        (0.9998, 0.9995, ("99.98 %", "99.95 %")),
        (0.9997, 0.9, ("99.97 %", "90.00 %")),
        (0.99999999, 0.99, ("99.9999 %", "99.0000 %")),
        (1.0, 1.0, ("100.0 %", "100.0 %")),
        (1.002, 0.998, ("100.2 %", "99.8 %")),
        (0.9, 0.9, ("90.0 %", "90.0 %")),
    ],
)
def test_decimals_tell_what_is_kept_from_its_limit_and_from_everything(
    share: float, limit: float, texts: tuple[str, str]
) -> None:
    assert kept(share, limit) == texts


@given(st.floats(-2, 2), st.floats(0, 1))
def test_what_is_kept_is_never_called_everything_and_its_limit_is_not_above_the_true_one(
    share: float, below: float
) -> None:
    estimate, limit = map(number, kept(share, share - below))
    assert estimate < 100 or share >= 1 - 1e-10  # the ninth decimal of a percentage is rounding
    assert limit <= estimate and limit <= 100 * (share - below) + 1e-6
    assert abs(estimate - 100 * share) <= 0.06


@given(st.floats(-1e6, 1e6))
def test_limits_are_rounded_away_from_what_they_promise(share: float) -> None:
    assert number(at_least(share)) <= 100 * share + 1e-6 and number(at_most(share)) >= 100 * share - 1e-6
    assert number(at_least(share)) <= number(percent(share)) <= number(at_most(share))


@pytest.mark.parametrize(
    ("number", "text"), [(1, "1"), (99, "99"), (101, "110"), (2300, "2,300"), (25079, "26,000"), (10**6, "1,000,000")]
)
def test_an_estimated_number_has_two_digits_and_is_never_too_small(number: int, text: str) -> None:
    assert about(number) == text


@pytest.mark.parametrize("share", [1e30, -1e300])
def test_absurd_shares_have_words_too(share: float) -> None:
    assert number(percent(share)) == pytest.approx(100 * share)


@pytest.mark.parametrize(
    ("share", "words"),
    [
        *[(1 / 2, "half"), (1 / 3, "a third"), (16 / 64, "a quarter"), (8 / 64, "an eighth"), (4 / 64, "a sixteenth")],
        *[(1 / 32, "3.1 %"), (0.27, "27 %"), (1.0, "100 %")],
    ],
)
def test_simple_fractions_of_the_parameters_are_words(share: float, words: str) -> None:
    assert parameters(share) == f"{words} of the parameters"
