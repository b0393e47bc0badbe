"""What a base and its arms hold, keep and compute, as `deltaw.plan.shapes` counts it.

The cost of a row is the cost of one row of each arm. Activations and FLOPs grow with the rows; the base does not.
"""

from dataclasses import dataclass, replace

Number = int | float  # bytes and FLOPs: a count is whole, a share of it is not

# Bytes of a parameter in 4 bits, with 8 bits of scale per 64 parameters, and 32 bits of scale per 256 such scales.
NF4_BYTES = (4 + (8 + 32 / 256) / 64) / 8


@dataclass(frozen=True)
class BaseSize:
    """The frozen base.

    Attributes:
        layers: gradient checkpointing computes them again, and sharding gathers them one by one.
        parameters: inside and outside of layers.
        packable_parameters: weights of linear layers inside layers; model.dtype=nf4 packs these and no others.
        parameter_bytes: per packable parameter.
        total_bytes: parameters and buffers.
        layers_bytes: the share of `total_bytes` inside layers.
        largest_layer_bytes: of one layer.
    """

    layers: int
    parameters: int
    packable_parameters: int
    parameter_bytes: Number
    total_bytes: Number
    layers_bytes: Number
    largest_layer_bytes: Number

    def with_parameter_bytes(self, parameter_bytes: Number) -> "BaseSize":
        """The base in another dtype: 2 bytes is bfloat16 throughout, fewer is for the packable parameters alone."""
        if parameter_bytes < 2 < self.parameter_bytes:
            return self.with_parameter_bytes(2).with_parameter_bytes(parameter_bytes)
        if parameter_bytes < 2:
            saved = self.packable_parameters * (self.parameter_bytes - parameter_bytes)
            share = 1 - saved / self.layers_bytes
        else:
            share = parameter_bytes / self.parameter_bytes
            saved = self.total_bytes * (1 - share)
        return replace(
            self,
            parameter_bytes=parameter_bytes,
            total_bytes=self.total_bytes - saved,
            layers_bytes=self.layers_bytes * share,
            largest_layer_bytes=self.largest_layer_bytes * share,
        )


@dataclass(frozen=True)
class ArmsSize:
    """All arms with their shadows.

    Attributes:
        parameters: of each arm, by its name; without shadows.
        total_bytes: parameters of all arms and shadows.
        trained_bytes: the share of `total_bytes` with gradients; Adam's two moments take twice as much.
    """

    parameters: dict[str, int]
    total_bytes: int
    trained_bytes: int


@dataclass(frozen=True)
class RowCost:
    """One row of each arm.

    Attributes:
        tokens: of one row.
        kept_bytes: what the forward pass keeps for the backward pass: activations, and gradients of the losses by the
            states that the output layer reads.
        checkpointed_bytes: the same under gradient checkpointing: inputs of layers, and what is kept outside of layers.
        recomputed_bytes: what the layer that keeps most of all keeps while it is computed again.
        loss_bytes: what the loss keeps of all labels, above all log-probabilities.
        most_loss_bytes: what it keeps at a time, of any number of rows; infinite for logits that all exist at once.
        base_flops: products with weights of the base, forward.
        attention_flops: products of activations with each other, forward.
        arms_flops: products with weights of the arms, forward.
        shadows_flops: products of the shadows, backward; they have none forward. At most, for an encoder-decoder: each
            of its layers counts with the tokens of both sequences.
        layers_flops: the share of the first three inside layers, forward.
    """

    tokens: int
    kept_bytes: Number
    checkpointed_bytes: Number
    recomputed_bytes: Number
    loss_bytes: Number
    most_loss_bytes: Number
    base_flops: Number
    attention_flops: Number
    arms_flops: Number
    shadows_flops: Number
    layers_flops: Number

    def step_flops(self, checkpointing: bool) -> Number:
        """FLOPs forward and backward: three times the forward pass, and twice for frozen weights without gradients."""
        recomputed = self.layers_flops if checkpointing else 0
        return 2 * self.base_flops + 3 * (self.attention_flops + self.arms_flops) + self.shadows_flops + recomputed

    def with_half_the_bytes(self) -> "RowCost":
        """What a row of about half the tokens keeps."""
        return replace(
            self,
            kept_bytes=self.kept_bytes / 2,
            checkpointed_bytes=self.checkpointed_bytes / 2,
            recomputed_bytes=self.recomputed_bytes / 2,
            loss_bytes=self.loss_bytes / 2,
        )


@dataclass(frozen=True)
class Workload:
    """The base, the arms, and one row of each arm."""

    base: BaseSize
    arms: ArmsSize
    row: RowCost

    @property
    def tokens(self) -> int:
        """Of one row of each arm."""
        return self.row.tokens * len(self.arms.parameters)

    @property
    def multiplied_parameters(self) -> Number:
        """n: parameters of the base that multiply each token; a head that shares an embedding's weights counts."""
        return self.row.base_flops / (2 * self.tokens)
