"""Where the time of a training step goes: the dearest kernels, calls that wait for the device, and its idle share."""

from collections import Counter
from pathlib import Path

from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from gpu_parts.results import Results
from gpu_parts.sizes import Sizes
from gpu_parts.workload import random_base, run_on, synchronise, train_arms

STEPS = 10
WAITING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
READ = "aten::_local_scalar_dense"  # a number read off a tensor; on a GPU it waits


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
            synchronise(self.sizes.device)
            self.profile.stop()


def run(out: Path, sizes: Sizes) -> None:
    """The first shape, both arms in company, the shortest rows."""
    (name, shape), *_ = sizes.shapes.items()
    tokens, profiler = min(sizes.tokens), Profiler(sizes)
    rows = sizes.batch_tokens // tokens
    results = Results(out / "profile.json", base=name, ranks=sizes.ranks, rows_of_an_arm=rows, tokens=tokens)
    settings = [f"arms.ranks={list(sizes.ranks)}", f"data.batch={rows}", f"trainer.max_steps={sizes.warmup + STEPS}"]
    with results.measuring(), run_on(sizes, shape, tokens, *settings) as cfg:
        train_arms(cfg, random_base(shape, sizes.device), profiler.step_ended)
        for row in dearest(profiler.profile.events() or [], on_gpu=sizes.device == "cuda"):
            results.add(**row)
        results.note(**waits(profiler.profile.events() or [], on_gpu=sizes.device == "cuda"))


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


def waits(events: list[FunctionEvent], on_gpu: bool) -> dict[str, object]:
    """Calls a step that wait for the device, numbers a step read off tensors, and the share of time without work."""
    names = Counter(event.name for event in events)
    work = sorted(
        (event.time_range.start, event.time_range.end)
        for event in events
        if (event.device_type == DeviceType.CUDA) == on_gpu and not event.is_user_annotation
    )
    busy, until = 0.0, work[0][0]
    for start, end in work:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    return {
        "waiting_calls": {name: names[name] / STEPS for name in WAITING if on_gpu},
        "numbers_read": names[READ] / STEPS,
        "idle_share": 1 - busy / (until - work[0][0]),
        "step_ms": (until - work[0][0]) / 1e3 / STEPS,
    }
