"""A plan in words: what a run takes, for the terminal."""

from collections.abc import Iterator

from deltaw.plan.arithmetic import RESERVED, Facts, Hardware, Number, Plan, gathered, hidden_from, memory

GIB = 2**30

_PARTS = {
    "base": "base",
    "gathered": "gathered: two layers, and what is outside of layers",
    "factors": "arms",
    "gradients": "their gradients",
    "moments": "Adam's two moments",
    "activations": "activations",
    "at once": "logits and their gradient",
}
_AGAIN = {"activations": "activations", "at once": "logits and gradient, or a layer computed again"}


def table(name: str, facts: Facts, hardware: Hardware, plan: Plan, checkpointing: bool) -> str:
    """Parameters, memory, arithmetic and links of a run, and the plan that follows from them.

    Args:
        name: of the base.
        facts: what is counted.
        hardware: what is given.
        plan: what follows.
        checkpointing: whether it has layers computed again on the way back.
    """
    lines = [
        f"{name}: {_count(facts.layers, 'layer')}, {_count(len(facts.arms), 'arm')}, rows of {facts.tokens:,} tokens; "
        f"{_count(hardware.devices, 'device')} of {_figure(hardware.memory / GIB)} GiB, up to {1 - RESERVED:.0%} full",
        *_parameters(facts),
        *_memory(facts, hardware, plan),
        *_arithmetic(facts, hardware, plan, checkpointing),
        *(_links(facts, hardware, plan, checkpointing) if hardware.devices > 1 else ()),
        *_suggestion(plan, checkpointing),
    ]
    return "\n".join(lines)


def verdict(facts: Facts, hardware: Hardware, plan: Plan, checkpointing: bool) -> str:
    """The plan alone, with what it takes of a device, in one line."""
    parts = hardware.devices if plan.engine == "fsdp" else 1
    needed = sum(memory(facts, parts, plan.rows, checkpointing).values())
    rows = f"{_figure(needed / GIB)} of {_figure(hardware.memory / GIB)} GiB with data.micro_batch={plan.rows}"
    return "; ".join([f"{'' if plan.fits else 'TOO LARGE, '}{rows}", plan.reason, *plan.remarks])


def _parameters(facts: Facts) -> Iterator[str]:
    yield _row("\nparameters, in millions")
    yield _row("  base", facts.parameters / 1e6)
    yield _row("  of them multiplied with each token (n)", facts.multiplied / 1e6)
    few = facts.arms if len(facts.arms) <= 6 else {f"all {len(facts.arms)} arms": sum(facts.arms.values())}
    for name, count in few.items():
        yield _row(f"  {name}", count / 1e6)


def _memory(facts: Facts, hardware: Hardware, plan: Plan) -> Iterator[str]:
    """One column for the whole base on each device, and one for a part of it."""
    parts = (1, hardware.devices) if hardware.devices > 1 else (1,)
    heads = ("ddp: whole", "fsdp: a part") if hardware.devices > 1 else ("single",)
    without, again = ([memory(facts, n, plan.rows, checkpointing) for n in parts] for checkpointing in (False, True))
    yield _row(f"\nmemory of a device, in GiB, with {_count(plan.rows, 'row')} of each arm at once", *heads)
    for part, words in _PARTS.items():
        if any(column[part] for column in without):
            yield _row(f"  {words}", *(column[part] / GIB for column in without))
    yield _row("  in all", *(sum(column.values()) / GIB for column in without))
    yield "  under gradient checkpointing"
    for part, words in _AGAIN.items():
        yield _row(f"    {words}", *(column[part] / GIB for column in again))
    yield _row("    in all", *(sum(column.values()) / GIB for column in again))


def _arithmetic(facts: Facts, hardware: Hardware, plan: Plan, checkpointing: bool) -> Iterator[str]:
    tokens = facts.tokens * len(facts.arms)
    yield _row("\narithmetic of a token, in GFLOP (a multiplication and an addition are two)")
    yield _row("  base: 4n, forward and back to its inputs", 2 * facts.base_flops / tokens / 1e9)
    yield _row("  attention: forward and back, to earlier tokens alone", 3 * facts.attention_flops / tokens / 1e9)
    yield _row("  arms: 6·r·(d_in + d_out), their mean", 3 * facts.arms_flops / tokens / 1e9)
    yield _row("  gradient checkpointing: layers forward again", facts.layers_flops / tokens / 1e9)
    rows = plan.rows * plan.accumulate * hardware.devices
    flops = rows * facts.step_flops(checkpointing)
    seconds, speed = flops / hardware.devices / hardware.speed, hardware.speed / 1e12
    yield (
        f"a step: {_count(rows, 'row')} of each arm, {rows * tokens:,} tokens, {_figure(flops / 1e12)} TFLOP; "
        f"{_figure(seconds)} s at {_figure(speed)} TFLOP/s of a device"
    )


def _links(facts: Facts, hardware: Hardware, plan: Plan, checkpointing: bool) -> Iterator[str]:
    size = gathered(facts, hardware.devices, plan.accumulate)
    seconds, speed = _figure(size / hardware.bandwidth), _figure(hardware.bandwidth / 1e9)
    yield f"\nlinks under fsdp: {_figure(size / GIB)} GiB reach a device in a step, {seconds} s at {speed} GB/s"
    yield (
        f"  a gather serves {plan.rows * facts.tokens * len(facts.arms):,} tokens; from "
        f"{hidden_from(facts, hardware, checkpointing):,.0f} on computing takes longer than gathering"
    )


def _suggestion(plan: Plan, checkpointing: bool) -> Iterator[str]:
    heading = "suggested" if plan.fits else "TOO LARGE even as"
    yield (
        f"\n{heading}: engine={plan.engine} data.micro_batch={plan.rows} ({plan.accumulate} in a step) "
        f"model.gradient_checkpointing={str(checkpointing).lower()}"
    )
    yield f"  {plan.reason}"
    for remark in plan.remarks:
        yield f"  {remark}"


def _row(words: str, *columns: Number | str) -> str:
    cells = [column if isinstance(column, str) else _figure(column) for column in columns]
    return f"{words:<{60 + words.count(chr(10))}}" + "".join(f"{cell:>14}" for cell in cells) if cells else words


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _figure(value: Number) -> str:
    """Three digits that count, and no exponent above 0.0001."""
    return "-" if value == 0 else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
