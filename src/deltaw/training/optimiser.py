"""AdamW for arms that train side by side, of which each can sit out a step."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import AdamW


class AdamWPerArm(AdamW):
    """Fused AdamW over a parameter group per arm; an arm that sits out a step keeps weights, moments and step count.

    Which arms do is told on the device, as fused AdamW's `found_inf`, so that no step waits for the device. Only the
    kernels for CPU and CUDA heed it: elsewhere AdamW is not fused, and a step waits.

    Args:
        groups: the weights of each arm, with its learning rate.
        weight_decay: in [0, 1).

    Attributes:
        sits_out: 1 for each group that sits out the next step, else 0; in float32.
    """

    sits_out: Float[Tensor, " groups"]

    def __init__(self, groups: list[dict[str, Any]], weight_decay: float):
        super().__init__(groups, weight_decay=weight_decay, fused=groups[0]["params"][0].device.type in ("cpu", "cuda"))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load moments and step counts, which may come from another kind of device: whether to fuse is this one's."""
        fused = {"fused": self.param_groups[0]["fused"]}
        super().load_state_dict(state_dict | {"param_groups": [group | fused for group in state_dict["param_groups"]]})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any]) -> Any:  # type: ignore[override]
        """Call `closure`, which computes the gradients and sets `sits_out`; then take the step. Returns its loss."""
        with torch.enable_grad():
            loss = closure()
        groups = self.param_groups
        for group, sits_out in zip(groups, self.sits_out, strict=True):
            if group["fused"]:
                self.found_inf = sits_out
            elif sits_out:
                continue
            self.param_groups = [group]  # one in each call, because `found_inf` holds for all groups of a call
            super().step()
        self.param_groups = groups
        return loss
