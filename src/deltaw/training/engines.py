"""How the processes of a run share its work: one alone, each with the whole base (DDP), or with a part (FSDP2)."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from deltaw.lora.sharded import part_of, whole
from deltaw.model.names import block_of


class Sharded(ModelParallelStrategy):
    """FSDP2: every process holds its part of each of the base's layers, of the factors and of their moments.

    Checkpoints are the same as under any other engine, and need not be gathered of the base: factors and moments come
    together whole, and are cut again for however many processes go on from them.
    """

    def __init__(self, timeout: timedelta):
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, timeout=timeout)

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes  # Lightning's default is no data parallelism
        super().setup_environment()

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {name: whole(tensor) for name, tensor in self._module.kept().items()}

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        state: dict[str, Any] = tree_map(whole, Strategy.optimizer_state(self, optimizer))
        return state

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        for name, tensor in self._module.kept().items():
            tensor.detach().copy_(part_of(checkpoint["state_dict"][name], tensor))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            for number, moments in state["state"].items():
                state["state"][number] = {name: part_of(value, weights[number]) for name, value in moments.items()}
            optimizer.load_state_dict(state)

    @property
    def _module(self) -> Any:
        return self.lightning_module


def strategy_of(engine: str, timeout: timedelta) -> Strategy | str:
    """Lightning's strategy for an engine; a process waits for the others as long as `timeout`."""
    if engine == "single":
        return "auto"
    if engine == "ddp":  # all processes have read the same files and drawn the same factors
        return DDPStrategy(timeout=timeout, init_sync=False, broadcast_buffers=False, gradient_as_bucket_view=True)
    return Sharded(timeout)


def shard(base: nn.Module, modules: Iterable[str], mesh: DeviceMesh) -> None:
    """Give each process its part of every layer of `base` that holds one of `modules`, and of what is outside them."""
    if not isinstance(base, FSDPModule):
        for block in dict.fromkeys(map(block_of, modules)):
            fully_shard(base.get_submodule(block), mesh=mesh)
        fully_shard(base, mesh=mesh)
