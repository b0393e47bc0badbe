"""A sample of `make fuzz`."""

from collections import Counter
from pathlib import Path

from tests.fuzz.__main__ import CLEAR, RESULT, fuzz
from tests.fuzz.trials import Trials


def test_mutated_folders_end_as_results_or_clear_errors(tmp_path: Path) -> None:
    outcomes = dict(fuzz(Trials(tmp_path), range(200)))
    assert {seed: outcome for seed, outcome in outcomes.items() if outcome not in (RESULT, CLEAR)} == {}
    assert min(Counter(outcomes.values()).values()) > 20
