"""The arithmetic of a run: what a device has to hold, compute and be sent, and which engine follows from it.

Pure functions of what is counted of a model (`deltaw.plan.shapes`) and of what is told of the hardware. A step of an
arm is `batch` rows over all devices, in `accumulate` micro-batches of `rows` rows a device. Each row is there once an
arm.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

Number = int | float  # bytes and FLOPs: whole where they are counted, not where they are shared out

RESERVED = 0.1  # of a device's memory: CUDA's context, the kernels' workspaces, gaps between blocks of unequal size
PACKED = (
    4 + (8 + 32 / 256) / 64
) / 8  # bytes of a weight: 4 bits, and 8 for the scale of 64, and 32 for that of 256 × 64


@dataclass(frozen=True)
class Facts:
    """What is counted of a base and its arms. Activations and FLOPs are of one row of every arm.

    Attributes:
        parameters: of the base.
        multiplied: n, those of the base that a token is multiplied by, a head that is tied to an embedding too.
        packable: of linear layers inside the base's layers, which model.dtype=nf4 has in 4 bits.
        weight: bytes of one of them.
        arms: by name, parameters of each arm.
        layers: how many; they are what gradient checkpointing computes again and what sharding gathers.
        tokens: of a row.
        base: bytes of its parameters and buffers.
        in_layers: bytes of those that are in layers.
        largest: bytes of the largest layer.
        factors: bytes of all arms' parameters.
        gradients: bytes of those that are trained; Adam's moments have two times as many.
        kept: bytes that the forward pass keeps for the backward pass, up to the logits.
        inputs: bytes of it under gradient checkpointing: what layers read, and what is outside of them.
        again: bytes that the layer with most of them keeps while it is computed again.
        loss: bytes that the loss keeps, log-probabilities above all.
        base_flops: of the products with the base's weights, forward.
        attention_flops: of attention, forward.
        arms_flops: of the products with the arms' weights, forward.
        layers_flops: of all these inside layers.
    """

    parameters: int
    multiplied: Number
    packable: int
    weight: Number
    arms: dict[str, int]
    layers: int
    tokens: int
    base: Number
    in_layers: Number
    largest: Number
    factors: int
    gradients: int
    kept: Number
    inputs: Number
    again: Number
    loss: Number
    base_flops: Number
    attention_flops: Number
    arms_flops: Number
    layers_flops: Number

    def stored(self, weight: Number) -> "Facts":
        """With `weight` bytes a weight of the base: 2 is bfloat16 throughout, less is for what can be packed alone."""
        if weight < 2 < self.weight:
            return self.stored(2).stored(weight)
        if weight < 2:
            saved = self.packable * (self.weight - weight)
            share = 1 - saved / self.in_layers
        else:
            share = weight / self.weight
            saved = self.base * (1 - share)
        return replace(
            self,
            weight=weight,
            base=self.base - saved,
            in_layers=self.in_layers * share,
            largest=self.largest * share,
        )

    def step_flops(self, checkpointing: bool) -> Number:
        """FLOPs of a row of every arm, forward and backward: a frozen weight has no gradient."""
        again = self.layers_flops if checkpointing else 0
        return 2 * self.base_flops + 3 * (self.attention_flops + self.arms_flops) + again


@dataclass(frozen=True)
class Hardware:
    """What a run is given.

    Attributes:
        devices: how many, over all nodes.
        memory: bytes of one.
        bandwidth: bytes a second that reach one from the others.
        speed: FLOPs a second that one does in practice.
    """

    devices: int
    memory: Number
    bandwidth: Number
    speed: Number


@dataclass(frozen=True)
class Plan:
    """What follows.

    Attributes:
        engine: "single", "ddp" (each device has the whole base) or "fsdp" (each has a part of it).
        reason: why, in words.
        rows: of an arm in a micro-batch of a device.
        accumulate: micro-batches of a step.
        fits: whether memory is enough; where it is not, this is the least that was tried.
        remarks: what else there is to know, or would help.
    """

    engine: str
    reason: str
    rows: int
    accumulate: int
    fits: bool
    remarks: tuple[str, ...] = ()


def memory(facts: Facts, parts: int, rows: int, checkpointing: bool) -> dict[str, Number]:
    """Bytes that a device holds at most, by what they are, if it has one of `parts` parts of base and factors.

    Of a sharded base two layers are whole at once, the one at work and the next, and what is outside of layers.
    """
    logits = 3 * facts.loss  # at worst log-probabilities, their gradient and that of the logits
    return {
        "base": facts.base / parts,
        "gathered": 2 * facts.largest + facts.base - facts.in_layers if parts > 1 else 0,
        "factors": facts.factors / parts,
        "gradients": facts.gradients / parts,
        "moments": 2 * facts.gradients / parts,
        "activations": rows * (facts.inputs if checkpointing else facts.kept),
        "at once": rows * (max(logits, facts.again) if checkpointing else logits),
    }


def gathered(facts: Facts, devices: int, accumulate: int) -> Number:
    """Bytes of the base that reach a device in a step under fsdp.

    In a micro-batch layers come forward and backward, the rest once. Factors and their gradients are a thousandth.
    """
    return accumulate * (facts.base + facts.in_layers) * (devices - 1) / devices


def hidden_from(facts: Facts, hardware: Hardware, checkpointing: bool) -> Number:
    """Tokens of all arms in a micro-batch of a device from which on computing takes as long as gathering."""
    seconds = gathered(facts, hardware.devices, 1) / hardware.bandwidth
    return seconds * hardware.speed / facts.step_flops(checkpointing) * facts.tokens * len(facts.arms)


def suggest(facts: Facts, hardware: Hardware, batch: int, most: int | None = None, checkpointing: bool = False) -> Plan:
    """The engine that moves least and fits, with the largest micro-batch that fits.

    Args:
        facts: what is counted.
        hardware: what is given.
        batch: rows of an arm in a step, over all devices.
        most: rows of an arm in a micro-batch of a device, at most.
        checkpointing: whether layers are computed again on the way back.
    """
    share = -(-batch // hardware.devices)
    for engine in _engines(facts, hardware):
        if rows := _rows(facts, hardware, engine, share, most, checkpointing):
            plan = Plan(engine, _reason(facts, hardware, engine), rows, share // rows, True)
            return replace(plan, remarks=(*_uneven(hardware, batch), *_better(facts, hardware, plan, checkpointing)))
    plan = Plan(_engines(facts, hardware)[-1], "not even one row of each arm fits", 1, share, False)
    helps = tuple(_helps(facts, hardware, checkpointing)) or ("nothing alone would be enough: change several",)
    return replace(plan, remarks=(*_uneven(hardware, batch), *helps))


def _engines(facts: Facts, hardware: Hardware) -> Sequence[str]:
    if hardware.devices == 1:
        return ("single",)
    return ("ddp", "fsdp") if facts.weight >= 2 else ("ddp",)  # packed weights cannot be cut


def _fits(facts: Facts, hardware: Hardware, engine: str, rows: int, checkpointing: bool) -> bool:
    parts = hardware.devices if engine == "fsdp" else 1
    return sum(memory(facts, parts, rows, checkpointing).values()) <= (1 - RESERVED) * hardware.memory


def _rows(
    facts: Facts, hardware: Hardware, engine: str, share: int, most: int | None, checkpointing: bool
) -> int | None:
    """The largest divisor of a device's share of the batch that fits."""
    options = [rows for rows in range(min(share, most or share), 0, -1) if share % rows == 0]
    return next((rows for rows in options if _fits(facts, hardware, engine, rows, checkpointing)), None)


def _reason(facts: Facts, hardware: Hardware, engine: str) -> str:
    if engine == "single":
        return "there is one device, and all fits"
    if engine == "ddp":
        return "the whole base fits on each device, so that nothing but the factors' gradients has to travel"
    return f"the base does not fit whole beside a row of each arm; a part of {hardware.devices} does"


def _uneven(hardware: Hardware, batch: int) -> Iterator[str]:
    if batch % hardware.devices:
        even = -(-batch // hardware.devices) * hardware.devices
        yield f"data.batch={batch} does not come out even on {hardware.devices} devices: planned for data.batch={even}"


def _better(facts: Facts, hardware: Hardware, plan: Plan, checkpointing: bool) -> Iterator[str]:
    """What would make a plan that fits faster."""
    whole = _engines(facts, hardware)[0]
    if checkpointing and _fits(facts, hardware, plan.engine, 1, False):
        yield "model.gradient_checkpointing=false would fit as well, if with fewer rows, and save a forward pass"
    if plan.engine != "fsdp":
        return
    if not checkpointing and _fits(facts, hardware, whole, 1, True):
        yield "model.gradient_checkpointing=true would leave room for the whole base on each device (ddp)"
    needed, tokens = hidden_from(facts, hardware, checkpointing), plan.rows * facts.tokens * len(facts.arms)
    if tokens < needed:
        yield "the links hold it up: more rows (data.batch) or more arms would use them better"


def _helps(facts: Facts, hardware: Hardware, checkpointing: bool) -> Iterator[str]:
    """What would make it fit, each alone."""
    half = replace(facts, **{name: getattr(facts, name) / 2 for name in ("kept", "inputs", "again", "loss")})
    changes = [
        (facts, True, "model.gradient_checkpointing=true", not checkpointing),
        (facts.stored(2), checkpointing, "model.dtype=bfloat16", facts.weight > 2),
        (facts.stored(PACKED), checkpointing, "model.dtype=nf4", facts.weight > PACKED),
        (half, checkpointing, f"data.max_length={facts.tokens // 2}", True),
    ]
    for changed, again, words, possible in changes:
        if possible and _fits(changed, hardware, _engines(changed, hardware)[-1], 1, again):
            yield f"{words} would fit"
    more = [replace(hardware, devices=hardware.devices * 2**i) for i in range(1, 11)]
    if enough := next((many.devices for many in more if _fits(facts, many, "fsdp", 1, checkpointing)), None):
        yield f"{enough} devices would fit (fsdp)"
