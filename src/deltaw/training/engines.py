"""The engines: one process; several, each with the whole base (ddp); or several, each with a part of it (fsdp)."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from deltaw.lora.sharded import gather, local_part
from deltaw.model.names import block_of


class Sharded(ModelParallelStrategy):
    """FSDP2: every process holds a part of each layer of the base, of each factor and of each moment.

    Checkpoints are the same as under the other engines. Saving gathers factors and moments, not the base; loading
    shards them again, for any number of processes.
    """

    def __init__(self, timeout: timedelta):
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes  # Lightning's default is 1: no data parallelism
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {name: gather(tensor) for name, tensor in self._module.state_of_arms().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = tree_map(gather, Strategy.optimizer_state(self, optimizer))
        return state

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        for name, tensor in self._module.state_of_arms().items():
            tensor.detach().copy_(local_part(checkpoint["state_dict"][name], tensor))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            for number, moments in state["state"].items():
                state["state"][number] = {name: local_part(value, weights[number]) for name, value in moments.items()}
            optimizer.load_state_dict(state)

    @property
    def _module(self) -> Any:
        return self.lightning_module


def strategy_of(engine: str, timeout: timedelta) -> Strategy | str:
    """Lightning's strategy for an engine; a process waits for the others for at most `timeout`."""
    if engine == "single":
        return "auto"
    if engine == "ddp":  # no initial sync: all processes read the same files and draw the same factors
        return DDPStrategy(timeout=timeout, init_sync=False, broadcast_buffers=False, gradient_as_bucket_view=True)
    return Sharded(timeout)


def shard(base: nn.Module, modules: Iterable[str], mesh: DeviceMesh) -> None:
    """Shard `base` over the processes: each layer that holds one of `modules` by itself, the rest together."""
    if not isinstance(base, FSDPModule):
        for block in dict.fromkeys(map(block_of, modules)):
            fully_shard(base.get_submodule(block), mesh=mesh)
        fully_shard(base, mesh=mesh)
