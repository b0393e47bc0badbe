"""Layers that fuse q, k and v as loralib stores them, the code of the LoRA paper (github.com/microsoft/LoRA).

Its MergedLinear adapts some of q, k and v: A has r rows for each of them, and B has d rows for each, in the same order.
"""

from itertools import compress
from typing import Any

from deltaw.errors import UserError
from deltaw.model.fused import Fused
from deltaw.model.names import is_fused
from deltaw.run.tensors import StoredTensor

# The paper adapts q and v, by enable_lora=[True, False, True].
_ADAPTED = {2: "qv", 3: "qkv"}

Pair = tuple[StoredTensor, StoredTensor]


def unmerge(module: str, pair: Pair, config: dict[str, Any]) -> tuple[dict[str, Pair], dict[str, Fused]]:
    """Part the A and B of a MergedLinear, as if its layer had been split into q_proj, k_proj and v_proj.

    Args:
        module: the layer's name.
        pair: its A and B.
        config: `adapter_config.json`; `enable_lora` there, three booleans, tells which of q, k and v are adapted.

    Returns:
        A and B by the names of the parts, and the layer's layout by its name; for any other layer, the pair itself.

    Raises:
        UserError: it is a MergedLinear, and nothing tells which rows are whose.
    """
    A, B = pair
    enabled = config.get("enable_lora")
    if not is_fused(module) or (len(A.shape), len(B.shape)) != (2, 2) or not (enabled or A.shape[0] > B.shape[1] > 0):
        return {module: pair}, {}
    (rows, d), rank = A.shape, B.shape[1]
    letters = "".join(compress("qkv", enabled)) if enabled else _ADAPTED.get(rows // rank, "")
    if not letters or A.shape[0] != len(letters) * rank or B.shape[0] != len(letters) * d:
        raise UserError(
            f"{A.path}: {module} has A {A.shape} and B {B.shape}, as loralib's MergedLinear, and nothing tells which "
            "rows are those of q, k and v: add enable_lora to the config, as [true, false, true] for q and v"
        )
    parts = {f"{module}.{letter}_proj": (A.part(n * rank, rank), B.part(n * d, d)) for n, letter in enumerate(letters)}
    return parts, {module: Fused(1, dict.fromkeys("qkv", d), transposed=bool(config.get("fan_in_fan_out")))}
