"""Everything that only a GPU can tell, in one command of six minutes that needs neither network nor hub.

python benchmarks/gpu.py OUT                  all parts
python benchmarks/gpu.py OUT speed profile    some of them
python benchmarks/gpu.py OUT --toy            every part at toy size on a CPU, in two minutes

Each part runs in a process of its own, for a bounded time, and writes OUT/<part>.json as it goes: one that fails or is
stopped leaves what it knew, and the others run. OUT/gpu.json says how each part ended, OUT/log.txt what they printed.
docs/gpu.md has the commands for machines with and without a package index.
"""

import argparse
import json
import os
import signal
import sys
import time
import traceback
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from gpu_parts.sizes import FULL, LIMITS, TOY, Sizes
from results_file import measured_on, note_failure

PROCESSES = get_context("forkserver")
# Loaded once for all parts, which takes longer than some of them. Not deltaw: its tests have it check every shape.
LOADED = ["torch", "transformers", "transformers.models.llama.modeling_llama", "transformers.trainer", "peft"]
LOADED += ["pytorch_lightning", "torchmetrics", "pandas", "hydra"]
LONGEST_LOG = 15 * 2**20  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder for the results")
    parser.add_argument("parts", nargs="*", metavar="part", help=f"some of {', '.join(LIMITS)}; default: all")
    parser.add_argument("--toy", action="store_true", help="at toy size on a CPU")
    given = parser.parse_args()
    if unknown := [part for part in given.parts if part not in LIMITS]:
        parser.error(f"there is no part {', '.join(unknown)}: choose from {', '.join(LIMITS)}")
    PROCESSES.set_forkserver_preload(LOADED)
    sys.exit(run(given.out, given.parts or list(LIMITS), TOY if given.toy else FULL))


def run(out: Path, parts: list[str], sizes: Sizes) -> int:
    """Run `parts` one after another; returns the exit code, 1 where one of them failed."""
    out = out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    log = out / "log.txt"
    log.unlink(missing_ok=True)
    with PROCESSES.Pool(1) as pool:  # not here: a process with CUDA in it is not to be the parent of others
        card = pool.apply(card_of, [sizes.device])
    if card is None:
        print("error: PyTorch finds no GPU here: give --toy to try every part on the CPU", file=sys.stderr)
        return 1
    about = measured_on(card.get("name")) | {"card": card}
    print(f"{about['machine']['card'] or about['machine']['processor']}: {', '.join(parts)}", flush=True)
    ended: dict[str, dict[str, Any]] = {}
    for part in parts:
        started = time.perf_counter()
        error = run_part(out, part, sizes, log)
        ended[part] = {"seconds": round(time.perf_counter() - started, 1), "error": error}
        whole = json.dumps({**about, "parts": ended}, indent=2, ensure_ascii=False)
        (out / "gpu.json").write_text(whole + "\n", encoding="utf-8")
        if log.exists() and log.stat().st_size > LONGEST_LOG:
            log.write_bytes(log.read_bytes()[-LONGEST_LOG:])
        print(f"{part}: {error or 'done'}, {ended[part]['seconds']} s", flush=True)
    if errors := [f"{part}: {end['error']}" for part, end in ended.items() if end["error"]]:
        print(f"error: {'; '.join(errors)}; {log} has more", file=sys.stderr)
    return 1 if errors else 0


def run_part(out: Path, part: str, sizes: Sizes, log: Path) -> str | None:
    """Run one part in a process of its own; returns what went wrong, in one line."""
    file = out / f"{part}.json"
    for old in out.glob(f"{part}.*"):
        old.unlink()
    process = PROCESSES.Process(target=_in_process, args=(out, part, sizes, log))
    process.start()
    process.join(sizes.limits[part])
    stopped = process.exitcode is None
    if stopped:
        os.killpg(process.pid or 0, signal.SIGKILL)  # with all that the part has started
        process.join()
    found = json.loads(file.read_text(encoding="utf-8"))["results"] if file.exists() else []
    failed = [result["error"] for result in found if "error" in result]
    if stopped:
        return f"stopped after {sizes.limits[part]} s with {len(found) - len(failed)} results"
    if failed:
        return f"{failed[0]}" + (f" and {len(failed) - 1} more" if len(failed) > 1 else "")
    return f"exit code {process.exitcode}" if process.exitcode else None


def _in_process(out: Path, part: str, sizes: Sizes, log: Path) -> None:
    os.setsid()  # a group of its own, to be stopped as a whole
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if sizes.device == "cpu":
        os.environ |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        import_module("torch").set_num_threads(1)  # threads within small products mostly wait for each other
    try:
        import_module(f"gpu_parts.{part}").run(out, sizes)
    except Exception as error:  # whatever it is, the others run
        traceback.print_exc()
        note_failure(out / f"{part}.json", error)


def card_of(device: str) -> dict[str, Any] | None:
    """The GPU that the numbers are measured on; empty for a CPU, and None where there is no such device."""
    import torch

    if device == "cpu":
        return {}
    if not torch.cuda.is_available():
        return None
    card = torch.cuda.get_device_properties(0)
    return {"name": card.name, "memory_gib": card.total_memory / 2**30, "cuda": torch.version.cuda}


if __name__ == "__main__":
    main()
