"""The tests that mean something on a device, with the outcome of each as it ends."""

from pathlib import Path

import pytest
from results_file import Results

from gpu_parts.sizes import Sizes

ROOT = Path(__file__).resolve().parents[2]


class Outcomes:
    """Note every test as pytest reports it.

    Args:
        results: where.
    """

    def __init__(self, results: Results):
        self.results = results

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        name = report.nodeid.rpartition("::")[2]
        if report.failed:
            self.results.add(
                test=name, error=str(report.longrepr).splitlines()[-1], report=str(report.longrepr)[-4000:]
            )
        else:
            self.results.add(test=name, outcome=report.outcome, seconds=round(report.duration, 2))


def run(out: Path, sizes: Sizes) -> None:
    """`pytest -m cuda`."""
    results = Results(out / "tests.json")
    arguments = [
        str(ROOT / "tests" / "training" / "test_cuda.py"),
        f"--rootdir={ROOT}",
        f"--device={sizes.device}",
        "-m",
        "cuda",
    ]
    code = pytest.main([*arguments, "-p", "no:cacheprovider"], plugins=[Outcomes(results)])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest ended with {code!r}")
