"""What 200,000 examples cost until the first batch, in time and memory, and how much of packed batches is padding.

python benchmarks/data.py
python benchmarks/data.py --examples 2000 --out try.json

The file is made of the bundled text's functions, each with a line of its own; the cache is empty at the start.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from markdown_table import in_markdown
from results_file import RESULTS, Results, measured_on

SEEDS: list[list[int]] = [[0], [0, 1, 2]]  # of the arms in a batch


def write(file: Path, count: int) -> None:
    from deltaw.data.calls import Calls

    pairs, draw = Calls().pairs, random.Random(0)
    with file.open("w", encoding="utf-8") as out:
        for n in range(count):
            prompt, completion = draw.choice(pairs)
            out.write(json.dumps({"prompt": f"# {n}\n{prompt}", "completion": completion}) + "\n")


def measure(file: Path, cache: Path) -> dict[str, Any]:
    from hydra import compose, initialize_config_dir

    from deltaw.config import schema
    from deltaw.data.batches import Examples, StepBatches
    from deltaw.data.held_out import held_out
    from deltaw.lora.arm import Arm
    from deltaw.model.loading import load_tokenizer
    from deltaw.training.build import corpus_of
    from deltaw.training.objectives import Causal

    schema.register()
    with initialize_config_dir(str(Path(__file__).parent.parent / "conf"), version_base="1.3"):
        data = compose("train", ["data=jsonl", f"data.path={file}", f"data.cache={cache}"]).data
    tokenizer = load_tokenizer("bundled")

    def batches(seeds: list[int]) -> StepBatches:
        arms = [Arm(f"r8-s{seed}", 8, seed, 16.0, "alpha/r", 1e-3) for seed in seeds]
        return StepBatches(examples, arms, data.batch, data.batch, 1000, 0, 1, packing=True)

    seconds = {}
    for state in ("tokenised anew", "from the cache"):
        started = time.perf_counter()
        corpus = corpus_of(data, "causal", tokenizer)
        examples = Examples(corpus, held_out(corpus, data.validation, data.judged).learnt, Causal(0).collate)
        batches(SEEDS[0])[0]
        seconds[state] = time.perf_counter() - started
    return {
        "examples": len(corpus),
        "file_mib": file.stat().st_size / 2**20,
        "tokens": int(examples.lengths.sum()),
        "seconds_to_first_batch": seconds,
        "padding": {", ".join(map(str, seeds)): batches(seeds).padding() for seeds in SEEDS},
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200_000)
    parser.add_argument("--out", type=Path, default=RESULTS / "data.json")
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:  # a process of its own, whose memory is that of the reading alone
        print(json.dumps(measure(*given.child)))
        return
    results = Results(given.out, **measured_on())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "examples.jsonl"
        write(file, given.examples)
        command = [sys.executable, __file__, "--child", str(file), folder + "/cache"]
        results.add(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
    print(table(results.found), given.out, sep="\n\n")


def table(found: dict[str, Any]) -> str:
    """Time, memory and padding."""
    (of,) = found["results"]
    rows = [
        ["the file", f"{of['examples']:,} examples, {of['file_mib']:.0f} MiB, {of['tokens'] / 1e6:.0f} million tokens"],
        *([f"first batch, {state}", f"{seconds:.1f} s"] for state, seconds in of["seconds_to_first_batch"].items()),
        *([f"padding, arms of seeds {seeds}", f"{share:.1%}"] for seeds, share in of["padding"].items()),
        ["most memory", f"{of['peak_gib']:.2f} GiB"],
    ]
    return in_markdown(["", ""], rows)


if __name__ == "__main__":
    main()
