"""Mutate adapter folders and run directories: each must end as a result or a UserError, never in another error.

python -m tests.fuzz                          20,000 folders
python -m tests.fuzz --seed=1234 --count=1    one of them again
"""

import argparse
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

import deltaw
from deltaw.errors import UserError
from tests.fuzz.trials import Trials

RESULT, CLEAR = "results", "clear errors"

SECONDS = 5.0  # of the processor, for one folder
MEMORY = 35 << 20  # bytes that one folder may add to the largest amount of memory so far
WARM = 20  # folders before memory counts: the first ones load libraries
SOURCE = Path(deltaw.__file__).parent


class HangError(BaseException):
    """A folder took too long."""


def fuzz(trials: Trials, seeds: range) -> Iterator[tuple[int, str]]:
    """Try a folder for each seed: yield the seed and `RESULT`, `CLEAR` or a report of the fault."""
    signal.signal(signal.SIGPROF, _hang)
    for number, seed in enumerate(seeds):
        before = _largest_memory()
        outcome = _outcome(trials, seed)
        grown = _largest_memory() - before
        yield seed, outcome if grown <= MEMORY or number < WARM else f"{grown >> 20} MB more memory, then {outcome}"


def _outcome(trials: Trials, seed: int) -> str:
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            trials(seed)
        return RESULT
    except UserError as error:
        str(error).encode()  # else no terminal could print it
        return CLEAR
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return f"{type(error).__name__}: {error}, in {_place(error)}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _place(error: BaseException) -> str:
    """The innermost line of this project's code that led to an error."""
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((frame for frame in reversed(frames) if SOURCE in Path(frame.filename).parents), frames[-1])
    return f"{frame.filename}:{frame.lineno}"


def _hang(_signal: int, _frame: object) -> None:
    raise HangError(f"more than {SECONDS} s of the processor")


def _largest_memory() -> int:
    """The most memory that this process has used, in bytes."""
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest << 10


def main() -> None:
    """Print each fault with the seed that repeats it, then counts, also when interrupted; exit with 1 after a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="number of folders")
    parser.add_argument("--seed", type=int, default=0, help="of the first folder; the next ones have the next seeds")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    start, outcomes = time.monotonic(), Counter[str]()
    with tempfile.TemporaryDirectory() as scratch, suppress(KeyboardInterrupt):
        for seed, outcome in fuzz(Trials(Path(scratch)), range(asked.seed, asked.seed + asked.count)):
            if outcome not in (RESULT, CLEAR):
                print(f"seed {seed}: {outcome}", flush=True)
            outcomes[outcome if outcome in (RESULT, CLEAR) else "faults"] += 1
    counts = ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in (RESULT, CLEAR, "faults"))
    print(f"{outcomes.total()} folders in {time.monotonic() - start:.0f} s: {counts}")
    sys.exit(outcomes["faults"] > 0)


if __name__ == "__main__":
    main()
