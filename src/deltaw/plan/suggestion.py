"""The engine and the micro-batch that suit a run, and what would suit it better."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from deltaw.plan.arithmetic import (
    RESERVED,
    DeviceMemory,
    Hardware,
    device_memory,
    tokens_that_hide_gathering,
)
from deltaw.plan.workload import NF4_BYTES, Workload


@dataclass(frozen=True)
class Setup:
    """A workload on hardware, without or with gradient checkpointing."""

    workload: Workload
    hardware: Hardware
    checkpointing: bool

    @property
    def engines(self) -> Sequence[str]:
        """The engines that can train it, the one that moves least first."""
        if self.hardware.devices == 1:
            return ("single",)
        packed = self.workload.base.parameter_bytes < 2  # fsdp cannot split packed weights
        return ("ddp",) if packed else ("ddp", "fsdp")

    def memory(self, engine: str, rows: int) -> DeviceMemory:
        """What a device holds, with `rows` rows of each arm at once."""
        parts = self.hardware.devices if engine == "fsdp" else 1
        return device_memory(self.workload, parts, rows, self.checkpointing)

    def fits(self, engine: str, rows: int) -> bool:
        """Whether a device has the memory, of which `RESERVED` stays free."""
        return self.memory(engine, rows).total <= (1 - RESERVED) * self.hardware.memory_bytes

    def largest_rows(self, engine: str, share: int, most: int | None) -> int | None:
        """The largest divisor of a device's `share` of the batch that fits and is at most `most`."""
        divisors = [rows for rows in range(min(share, most or share), 0, -1) if share % rows == 0]
        return next((rows for rows in divisors if self.fits(engine, rows)), None)


@dataclass(frozen=True)
class Plan:
    """How to train a setup.

    Attributes:
        engine: "single", "ddp" (each device has the whole base) or "fsdp" (each device has a part of it).
        reason: why this engine, in words.
        rows: of one arm in a micro-batch of one device.
        micro_batches: of one device in a step.
        fits: whether the memory suffices; if not, this is the smallest plan that was tried.
        remarks: what else to know, and what would help.
    """

    engine: str
    reason: str
    rows: int
    micro_batches: int
    fits: bool
    remarks: tuple[str, ...] = ()


def suggest(setup: Setup, batch: int, most: int | None = None) -> Plan:
    """The engine that moves least among those that fit, with the largest micro-batch that fits.

    Args:
        setup: what runs, and on what.
        batch: rows of one arm in a step, over all devices.
        most: rows of one arm in a micro-batch of one device, at most; None for no limit.
    """
    share = -(-batch // setup.hardware.devices)
    for engine in setup.engines:
        if rows := setup.largest_rows(engine, share, most):
            plan = Plan(engine, _reason(engine, setup.hardware), rows, share // rows, True)
            return replace(plan, remarks=(*_uneven(setup.hardware, batch), *_faster(setup, plan)))
    changes = tuple(_changes_that_fit(setup)) or ("nothing alone would be enough: change several",)
    remarks = (*_uneven(setup.hardware, batch), *changes)
    return Plan(setup.engines[-1], "not even one row of each arm fits", 1, share, False, remarks)


def _reason(engine: str, hardware: Hardware) -> str:
    if engine == "single":
        return "there is one device, and all fits"
    if engine == "ddp":
        return "the whole base fits on each device, so that nothing but the factors' gradients has to travel"
    return f"the base does not fit whole beside a row of each arm; a part of {hardware.devices} does"


def _uneven(hardware: Hardware, batch: int) -> Iterator[str]:
    if batch % hardware.devices:
        even = -(-batch // hardware.devices) * hardware.devices
        yield f"data.batch={batch} does not come out even on {hardware.devices} devices: planned for data.batch={even}"


def _faster(setup: Setup, plan: Plan) -> Iterator[str]:
    """Changes that would make a plan that fits faster."""
    if setup.checkpointing and replace(setup, checkpointing=False).fits(plan.engine, 1):
        yield "model.gradient_checkpointing=false would fit as well, if with fewer rows, and save a forward pass"
    if plan.engine != "fsdp":
        return
    if not setup.checkpointing and replace(setup, checkpointing=True).fits("ddp", 1):
        yield "model.gradient_checkpointing=true would leave room for the whole base on each device (ddp)"
    needed = tokens_that_hide_gathering(setup.workload, setup.hardware, setup.checkpointing)
    if plan.rows * setup.workload.tokens < needed:
        yield "the links hold it up: more rows (data.batch) or more arms would use them better"


def _changes_that_fit(setup: Setup) -> Iterator[str]:
    """Changes each of which would be enough, alone, to make one row of each arm fit."""
    for change, changed in _changes(setup):
        if changed.fits(changed.engines[-1], 1):
            yield f"{change} would fit"
    for devices in (setup.hardware.devices * 2**power for power in range(1, 11)):
        if replace(setup, hardware=replace(setup.hardware, devices=devices)).fits("fsdp", 1):
            yield f"{devices} devices would fit (fsdp)"
            return


def _changes(setup: Setup) -> Iterator[tuple[str, Setup]]:
    """Settings that take less memory, each with the setup that it gives."""
    workload, base = setup.workload, setup.workload.base
    if not setup.checkpointing:
        yield "model.gradient_checkpointing=true", replace(setup, checkpointing=True)
    for dtype, parameter_bytes in (("bfloat16", 2), ("nf4", NF4_BYTES)):
        if base.parameter_bytes > parameter_bytes:
            smaller = replace(workload, base=base.with_parameter_bytes(parameter_bytes))
            yield f"model.dtype={dtype}", replace(setup, workload=smaller)
    shorter = replace(workload, row=workload.row.with_half_the_bytes())
    yield f"data.max_length={workload.row.tokens // 2}", replace(setup, workload=shorter)
