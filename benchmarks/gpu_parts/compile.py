"""What `model.compile` gains in a step of both arms, and what it costs before the first."""

import time
from pathlib import Path

from results_file import Results

from gpu_parts.sizes import Sizes
from gpu_parts.speed import ours
from gpu_parts.workload import Clock, free, run_on


def run(out: Path, sizes: Sizes) -> None:
    """The first shape, the shortest rows, without and with it; a toy leaves it out, for a CPU compiles for minutes."""
    (name, shape), *_ = sizes.shapes.items()
    tokens, low_high = min(sizes.tokens), list(sizes.ranks)
    results = Results(out / "compile.json", base=name, tokens=tokens, ranks=sizes.ranks)
    settings = [f"arms.ranks={low_high}", "arms.shadows=0", f"data.batch={sizes.batch_tokens // tokens}"]
    settings += [f"trainer.max_steps={sizes.warmup + sizes.steps}", "metrics.every=1000"]
    for compiled in (False, True) if sizes.device == "cuda" else (False,):
        with (
            results.measuring(compile=compiled),
            run_on(sizes, shape, tokens, *settings, f"model.compile={compiled}") as cfg,
        ):
            clock, started = Clock(sizes), time.perf_counter()
            moved = ours(cfg, shape, clock)
            before = time.perf_counter() - started - sizes.steps * clock.seconds
            times = {"step_s": clock.seconds, "before_s": before}
            results.add(compile=compiled, **times, peak_gib=clock.peak_gib, weights_moved=moved)
        free(sizes.device)
