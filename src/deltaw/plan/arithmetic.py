"""What one device of a run holds, computes and receives.

A step takes `batch` rows of each arm over all devices. Each device takes its share in micro-batches of `rows` rows.
"""

from dataclasses import astuple, dataclass

from deltaw.plan.workload import Number, Workload

RESERVED = 0.1  # share of a device's memory: CUDA's context, kernels' workspaces, gaps between blocks of unequal size


@dataclass(frozen=True)
class Hardware:
    """The devices of a run, all of one kind.

    Attributes:
        devices: over all machines.
        memory_bytes: of one device.
        bytes_per_second: that reach one device from the others.
        flops_per_second: of one device, in practice.
    """

    devices: int
    memory_bytes: Number
    bytes_per_second: Number
    flops_per_second: Number


@dataclass(frozen=True)
class DeviceMemory:
    """The most that one device holds, in bytes.

    Attributes:
        base: parameters and buffers of the frozen base, or a part of them.
        gathered: under sharding, two whole layers (the one at work and the next), and what is outside of layers.
        arms: parameters of all arms and shadows.
        gradients: of the trained parameters.
        moments: Adam's two.
        activations: what the forward pass keeps.
        largest: logits with their gradient, or a layer that is computed again: only one of these is there at a time.
    """

    base: Number
    gathered: Number
    arms: Number
    gradients: Number
    moments: Number
    activations: Number
    largest: Number

    @property
    def total(self) -> Number:
        """Bytes in all."""
        return sum(astuple(self))


def device_memory(workload: Workload, parts: int, rows: int, checkpointing: bool) -> DeviceMemory:
    """What a device holds that has one of `parts` parts of base and arms, with `rows` rows of each arm at once."""
    base, arms, row = workload.base, workload.arms, workload.row
    # At worst log-probabilities, their gradient and the gradient of the logits.
    logits = 3 * min(rows * row.loss_bytes, row.most_loss_bytes)
    return DeviceMemory(
        base=base.total_bytes / parts,
        gathered=2 * base.largest_layer_bytes + base.total_bytes - base.layers_bytes if parts > 1 else 0,
        arms=arms.total_bytes / parts,
        gradients=arms.trained_bytes / parts,
        moments=2 * arms.trained_bytes / parts,
        activations=rows * (row.checkpointed_bytes if checkpointing else row.kept_bytes),
        largest=max(logits, rows * row.recomputed_bytes) if checkpointing else logits,
    )


def gathered_bytes(workload: Workload, devices: int, micro_batches: int) -> Number:
    """Bytes of the base that reach a device in a step under fsdp.

    Each micro-batch gathers the layers twice, forward and backward, and the rest once. Arms and gradients, about a
    thousandth, are left out.
    """
    return micro_batches * (workload.base.total_bytes + workload.base.layers_bytes) * (devices - 1) / devices


def tokens_that_hide_gathering(workload: Workload, hardware: Hardware, checkpointing: bool) -> Number:
    """Tokens of all arms in a micro-batch of a device at which computing takes as long as gathering."""
    seconds = gathered_bytes(workload, hardware.devices, 1) / hardware.bytes_per_second
    return seconds * hardware.flops_per_second / workload.row.step_flops(checkpointing) * workload.tokens
