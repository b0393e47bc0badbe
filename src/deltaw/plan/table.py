"""A plan in words, for the terminal."""

from collections.abc import Iterator

from deltaw.plan.arithmetic import RESERVED, device_memory, gathered_bytes, tokens_that_hide_gathering
from deltaw.plan.suggestion import Plan, Setup
from deltaw.plan.workload import Number, Workload

GIB = 2**30

# Fields of `DeviceMemory`, as the table names them.
_HELD = {
    "base": "base",
    "gathered": "gathered: two layers, and what is outside of layers",
    "arms": "arms with shadows",
    "gradients": "their gradients",
    "moments": "Adam's two moments",
    "activations": "activations",
    "largest": "logits and their gradient",
}
_HELD_UNDER_CHECKPOINTING = {
    "activations": "activations",
    "largest": "logits and gradient, or a layer computed again",
}


def table(name: str, setup: Setup, plan: Plan) -> str:
    """Parameters, memory, arithmetic and links of a run, and its plan; lines of at most 120 characters.

    Args:
        name: the base's.
        setup: what runs, and on what.
        plan: the suggestion for `setup`.
    """
    row, arms, hardware = setup.workload.row, setup.workload.arms, setup.hardware
    lines = [
        f"{name}: {_count(setup.workload.base.layers, 'layer')}, {_count(len(arms.parameters), 'arm')}, "
        f"rows of {row.tokens:,} tokens; {_count(hardware.devices, 'device')} of "
        f"{_figure(hardware.memory_bytes / GIB)} GiB, up to {1 - RESERVED:.0%} full",
        *_parameters(setup.workload),
        *_memory(setup, plan),
        *_arithmetic(setup, plan),
        *(_links(setup, plan) if hardware.devices > 1 else ()),
        *_suggestion(setup, plan),
    ]
    return "\n".join(lines)


def verdict(setup: Setup, plan: Plan) -> str:
    """The plan and the memory that it needs, in one line."""
    needed, there = setup.memory(plan.engine, plan.rows).total, setup.hardware.memory_bytes
    rows = f"{_figure(needed / GIB)} of {_figure(there / GIB)} GiB with data.micro_batch={plan.rows}"
    return "; ".join([f"{'' if plan.fits else 'TOO LARGE, '}{rows}", plan.reason, *plan.remarks])


def _parameters(workload: Workload) -> Iterator[str]:
    arms = workload.arms.parameters
    yield _line("\nparameters, in millions")
    yield _line("  base", workload.base.parameters / 1e6)
    yield _line("  of them multiplied with each token (n)", workload.multiplied_parameters / 1e6)
    for name, count in arms.items() if len(arms) <= 6 else [(f"all {len(arms)} arms", sum(arms.values()))]:
        yield _line(f"  {name}", count / 1e6)


def _memory(setup: Setup, plan: Plan) -> Iterator[str]:
    """One column for the whole base on each device, and one for a part of it."""
    devices = setup.hardware.devices
    columns = {"ddp: whole": 1, "fsdp: a part": devices} if devices > 1 else {"single": 1}
    without, checkpointed = (
        [device_memory(setup.workload, parts, plan.rows, checkpointing) for parts in columns.values()]
        for checkpointing in (False, True)
    )
    yield _line(f"\nmemory of a device, in GiB, with {_count(plan.rows, 'row')} of each arm at once", *columns)
    for field, words in _HELD.items():
        held = [getattr(memory, field) / GIB for memory in without]
        if any(held):
            yield _line(f"  {words}", *held)
    yield _line("  in all", *(memory.total / GIB for memory in without))
    yield "  under gradient checkpointing"
    for field, words in _HELD_UNDER_CHECKPOINTING.items():
        yield _line(f"    {words}", *(getattr(memory, field) / GIB for memory in checkpointed))
    yield _line("    in all", *(memory.total / GIB for memory in checkpointed))


def _arithmetic(setup: Setup, plan: Plan) -> Iterator[str]:
    row, tokens, hardware = setup.workload.row, setup.workload.tokens, setup.hardware
    yield _line("\narithmetic of a token, in GFLOP (a multiplication and an addition are two)")
    yield _line("  base: 4n, forward and back to its inputs", 2 * row.base_flops / tokens / 1e9)
    yield _line("  attention: forward and back, to earlier tokens alone", 3 * row.attention_flops / tokens / 1e9)
    yield _line("  arms: 6·r·(d_in + d_out), their mean", 3 * row.arms_flops / tokens / 1e9)
    if row.shadows_flops:
        yield _line("  shadows: 4·r·(d_in + d_out), backward alone, their mean", row.shadows_flops / tokens / 1e9)
    yield _line("  gradient checkpointing: layers forward again", row.layers_flops / tokens / 1e9)
    rows = plan.rows * plan.micro_batches * hardware.devices
    flops = rows * row.step_flops(setup.checkpointing)
    seconds, speed = flops / hardware.devices / hardware.flops_per_second, hardware.flops_per_second / 1e12
    yield (
        f"a step: {_count(rows, 'row')} of each arm, {rows * tokens:,} tokens, {_figure(flops / 1e12)} TFLOP; "
        f"{_figure(seconds)} s at {_figure(speed)} TFLOP/s of a device"
    )


def _links(setup: Setup, plan: Plan) -> Iterator[str]:
    hardware, size = setup.hardware, gathered_bytes(setup.workload, setup.hardware.devices, plan.micro_batches)
    seconds, speed = _figure(size / hardware.bytes_per_second), _figure(hardware.bytes_per_second / 1e9)
    enough = tokens_that_hide_gathering(setup.workload, hardware, setup.checkpointing)
    yield f"\nlinks under fsdp: {_figure(size / GIB)} GiB reach a device in a step, {seconds} s at {speed} GB/s"
    yield (
        f"  a gather serves {plan.rows * setup.workload.tokens:,} tokens; from {enough:,.0f} on computing takes longer "
        "than gathering"
    )


def _suggestion(setup: Setup, plan: Plan) -> Iterator[str]:
    heading = "suggested" if plan.fits else "TOO LARGE even as"
    yield (
        f"\n{heading}: engine={plan.engine} data.micro_batch={plan.rows} ({plan.micro_batches} in a step) "
        f"model.gradient_checkpointing={str(setup.checkpointing).lower()}"
    )
    yield f"  {plan.reason}"
    for remark in plan.remarks:
        yield f"  {remark}"


def _line(words: str, *columns: Number | str) -> str:
    cells = [column if isinstance(column, str) else _figure(column) for column in columns]
    return f"{words:<{60 + words.count(chr(10))}}" + "".join(f"{cell:>14}" for cell in cells) if cells else words


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _figure(value: Number) -> str:
    """A number with three significant digits, or with all its whole digits from 100 on; no exponent above 0.0001."""
    return "-" if value == 0 else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
