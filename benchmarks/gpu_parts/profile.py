"""Where the time of a training step goes: the dearest kernels, calls that wait for the device, and its idle share.

None of the profiled steps records a metric: the processor is to hand work to the device, and never wait for it.
"""

from collections import Counter
from math import inf
from pathlib import Path

from results_file import Results
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from gpu_parts.sizes import Sizes
from gpu_parts.workload import random_base, run_on, synchronise, train_arms

STEPS = 10
WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy", "Memcpy DtoH")
# Operators that read a value off a tensor, and wait where that is on a GPU. The loader, and on a CPU the fused AdamW,
# read tensors of the processor.
READING = ("aten::item", "aten::_local_scalar_dense", "aten::is_nonzero", "aten::nonzero")
BEHIND = "behind the steps"  # this script's own waiting is there


class Profiler:
    """Profile `STEPS` steps behind the warm-up.

    Args:
        sizes: of the warm-up, and the device.
    """

    def __init__(self, sizes: Sizes):
        self.sizes = sizes
        device = [ProfilerActivity.CUDA] if sizes.device == "cuda" else []
        self.profile = profile(activities=[ProfilerActivity.CPU, *device])

    def step_ended(self, step: int) -> None:
        """To be told of each optimiser step as it ends, from 1."""
        if step == self.sizes.warmup:
            synchronise(self.sizes.device)
            self.profile.start()
        if step == self.sizes.warmup + STEPS:
            with record_function(BEHIND):
                synchronise(self.sizes.device)
            self.profile.stop()


def run(out: Path, sizes: Sizes) -> None:
    """The first shape, both arms in company, the shortest rows."""
    (name, shape), *_ = sizes.shapes.items()
    tokens, profiler = min(sizes.tokens), Profiler(sizes)
    rows = sizes.batch_tokens // tokens
    results = Results(out / "profile.json", base=name, ranks=sizes.ranks, rows_of_an_arm=rows, tokens=tokens)
    settings = [f"arms.ranks={list(sizes.ranks)}", f"data.batch={rows}", f"trainer.max_steps={sizes.warmup + STEPS}"]
    settings.append(f"metrics.every={sizes.warmup + 2 * STEPS}")
    with results.measuring(), run_on(sizes, shape, tokens, *settings) as cfg:
        train_arms(cfg, random_base(shape, sizes.device), profiler.step_ended)
        for row in dearest(profiler.profile.events() or [], on_gpu=sizes.device == "cuda"):
            results.add(**row)
        results.note(waits_in_ten_steps=waits(profiler.profile.events() or []))
        results.note(**idle(profiler.profile.events() or [], on_gpu=sizes.device == "cuda"))


def dearest(events: list[FunctionEvent], on_gpu: bool) -> list[dict[str, object]]:
    """The ten kernels (on a CPU, operators without their children) that take most time, in ms a step."""
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in events:
        if (event.device_type == DeviceType.CUDA) == on_gpu:
            spent[event.name] += event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
            calls[event.name] += 1
    return [
        {"name": name[:200], "ms": time / 1e3 / STEPS, "calls": calls[name] / STEPS, "share": time / spent.total()}
        for name, time in spent.most_common(10)
    ]


def waits(events: list[FunctionEvent]) -> dict[str, dict[str, int]]:
    """How often each call that waits for the device, or would, was made in all steps, by the operator that made it."""
    behind = min((event.time_range.start for event in events if event.name == BEHIND), default=inf)
    found: dict[str, Counter[str]] = {name: Counter() for name in (*WAITING, *READING)}
    for event in events:
        for name in found:
            called = event.name.startswith(name) if name.startswith("Memcpy") else event.name == name
            if called and event.time_range.start < behind:
                found[name][event.cpu_parent.name if event.cpu_parent else ""] += 1
    return {name: dict(callers) for name, callers in found.items()}


def idle(events: list[FunctionEvent], on_gpu: bool) -> dict[str, float]:
    """The share of time without work, and the time of a step."""
    work = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if (event.device_type == DeviceType.CUDA) == on_gpu and not event.is_user_annotation
    )
    busy, until = 0.0, work[0][0]
    for start, end in work:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return {"idle_share": 1 - busy / (until - work[0][0]), "step_ms": (until - work[0][0]) / 1e3 / STEPS}
