"""Shares and estimated numbers as sentences say them. A limit is rounded away from what it promises."""

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Context, Decimal
from math import floor, isclose, log10

_MOST_DECIMALS = 4
_FRACTIONS = {1 / 2: "half", 1 / 3: "a third", 1 / 4: "a quarter", 1 / 8: "an eighth", 1 / 16: "a sixteenth"}


def percent(share: float, rounding: str = ROUND_HALF_EVEN) -> str:
    """A share, 1 for all, with two digits: 12 %, 1.2 %, 0.43 %, −0.3 %; a share below a hundredth of a percent: 0 %."""
    size = abs(100 * share)
    decimals = min(max(1 - floor(log10(size)), 0), 2) if size > 0 else 0
    return _shown(_rounded(share, decimals, rounding))


def at_most(share: float) -> str:
    """An upper limit of a share, rounded up."""
    return percent(share, ROUND_CEILING)


def at_least(share: float) -> str:
    """A lower limit of a share, rounded down."""
    return percent(share, ROUND_FLOOR)


def kept(share: float, limit: float) -> tuple[str, str]:
    """A share of nearly 1 and its lower limit, with the decimals that tell them apart and from 1: 99.7 %, 99.6 %.

    Args:
        share: of the gain that is kept; above 1 where it grew.
        limit: at most `share`.
    """
    for decimals in range(1, _MOST_DECIMALS + 1):
        estimate, lowest = _rounded(share, decimals, ROUND_HALF_EVEN), _rounded(limit, decimals, ROUND_FLOOR)
        if share < 1 and estimate >= 100:
            estimate = _rounded(share, decimals, ROUND_FLOOR)
        elif estimate != lowest or isclose(share, limit, rel_tol=1e-9):
            break
    return _shown(estimate), _shown(lowest)


def about(number: int) -> str:
    """A number of examples that an estimate gives, rounded up to two digits."""
    step = 10 ** max(len(str(number)) - 2, 0)
    return f"{-(-number // step) * step:,}"


def parameters(share: float) -> str:
    """A share of the parameters: a word for a simple fraction, else in percent."""
    word = next((word for fraction, word in _FRACTIONS.items() if isclose(share, fraction, rel_tol=1e-6)), None)
    return f"{word or percent(share)} of the parameters"


def _rounded(share: float, decimals: int, rounding: str) -> Decimal:
    """In percent. What float64 adds to the ninth decimal is no part of the share."""
    return Decimal(f"{100 * share:.9f}").quantize(Decimal(1).scaleb(-decimals), rounding, Context(prec=400))


def _shown(number: Decimal) -> str:
    return f"{number or 0} %".replace("-", "−")
