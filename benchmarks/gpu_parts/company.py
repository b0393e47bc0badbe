"""Two arms in company against one after the other, where few tokens leave the device waiting for launches."""

from dataclasses import replace
from pathlib import Path

from results_file import Results

from gpu_parts.sizes import Sizes
from gpu_parts.speed import ours
from gpu_parts.workload import Clock, free, run_on


def run(out: Path, sizes: Sizes) -> None:
    """The last shape, with one row of each arm; the shortest first, where the gain is to be largest."""
    *_, (name, shape) = sizes.shapes.items()
    low, high = sizes.ranks
    sizes = replace(sizes, steps=sizes.short_steps)  # of few tokens, steps are short
    results = Results(out / "company.json", base=name, rows_of_an_arm=1)
    for tokens in sizes.company_tokens:
        seconds: list[float] = []
        for ranks in ([low, high], [low], [high]):
            what = {"tokens_of_an_arm": tokens, "ranks": ranks}
            with results.measuring(**what):
                settings = [f"arms.ranks={ranks}", "arms.shadows=0", "data.batch=1"]
                settings += [f"trainer.max_steps={sizes.warmup + sizes.steps}", "metrics.every=1000"]
                with run_on(sizes, shape, tokens, *settings) as cfg:
                    clock = Clock(sizes)
                    moved = ours(cfg, shape, clock)
                results.add(**what, step_s=clock.seconds, peak_gib=clock.peak_gib, weights_moved=moved)
                seconds.append(clock.seconds)
            free(sizes.device)
        if len(seconds) == 3:
            both, *alone = seconds
            results.add(tokens_of_an_arm=tokens, one_after_the_other_over_company=sum(alone) / both)
