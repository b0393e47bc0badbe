"""Planned memory beside the allocator's peak, of two arms in a real step: the bundled base, and two Llama shapes."""

from pathlib import Path

from plan import compare
from results_file import Results

from deltaw.model.loading import load_base, load_tokenizer
from gpu_parts.sizes import Sizes
from gpu_parts.workload import config_of, free, random_base, run_on

GIB = 2**30


def run(out: Path, sizes: Sizes) -> None:
    """Five shapes: the bundled base, and each Llama without and with gradient checkpointing."""
    results = Results(out / "plan.json", tokens=sizes.plan_tokens, rows_of_an_arm=1, ranks=sizes.ranks)
    settings = [f"arms.ranks={list(sizes.ranks)}", "data.batch=1"]
    with results.measuring(base="bundled"):
        cfg = config_of(f"data.max_length={sizes.plan_tokens}", *settings)
        base = load_base("bundled", load_tokenizer("bundled"))
        results.add(base="bundled", checkpointing=False, **beside(*compare(cfg, base, sizes.device)))
        del base
    for name, shape in sizes.shapes.items():
        for checkpointing in (False, True):
            what = {"base": name, "checkpointing": checkpointing}
            again = f"model.gradient_checkpointing={checkpointing}"
            with results.measuring(**what), run_on(sizes, shape, sizes.plan_tokens, *settings, again) as cfg:
                base = random_base(shape, sizes.device, checkpointing)
                results.add(**what, **beside(*compare(cfg, base, sizes.device)))
                del base
            free(sizes.device)


def beside(planned: float, measured: float) -> dict[str, float]:
    """Both in GiB, and by what share the plan is above what was measured."""
    return {"planned_gib": planned / GIB, "measured_gib": measured / GIB, "plan_is_above_by": planned / measured - 1}
