"""What 200,000 examples cost until the first batch, in time and memory, and how much of the batches is padding.

python benchmarks/data.py [examples]

The file is made of the bundled text's functions, each with a line of its own; the cache is empty at the start.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COUNT = 200_000
SEEDS: list[list[int]] = [[0], [0, 1, 2]]  # of the arms in a batch


def write(file: Path, count: int) -> None:
    from deltaw.data.calls import Calls

    pairs, draw = Calls().pairs, random.Random(0)
    with file.open("w", encoding="utf-8") as out:
        for n in range(count):
            prompt, completion = draw.choice(pairs)
            out.write(json.dumps({"prompt": f"# {n}\n{prompt}", "completion": completion}) + "\n")


def measure(file: Path, cache: Path) -> None:
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
        return StepBatches(examples, arms, data.batch, data.batch, 1000, 0, 1)

    for state in ("tokenised anew", "from the cache"):
        started = time.perf_counter()
        corpus = corpus_of(data, "causal", tokenizer)
        examples = Examples(corpus, held_out(corpus, data.validation, data.judged).learnt, Causal(0).collate)
        batches(SEEDS[0])[0]
        print(f"{state}: {time.perf_counter() - started:.1f} s to the first batch")
    for seeds in SEEDS:
        print(f"arms of the seeds {seeds}: {batches(seeds).padding():.1%} padding")
    tokens = int(examples.lengths.sum())
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = file.stat().st_size / 2**20
    print(f"{len(corpus):,} examples of {size:.0f} MiB, {tokens / 1e6:.1f} M tokens, {gigabytes:.2f} GiB of memory")


def main() -> None:
    if len(sys.argv) == 3:  # a process of its own, whose memory is that of the reading alone
        measure(Path(sys.argv[1]), Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "examples.jsonl"
        write(file, int(sys.argv[1]) if len(sys.argv) == 2 else COUNT)
        print(f"{os.cpu_count()} cores", flush=True)
        subprocess.run([sys.executable, __file__, str(file), folder + "/cache"], check=True)


if __name__ == "__main__":
    main()
