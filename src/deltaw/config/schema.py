"""The types of `conf/*.yaml`: a wrong key or type is an error before anything is loaded.

The YAML explains each key.
"""

from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore

TASKS = ("causal", "seq2seq", "classification")
NF4 = "nf4"  # the model.dtype of a base in 4 bits
NAME = r"[A-Za-z0-9._-]+"  # of runs and arms: each names a directory


@dataclass
class RunConfig:
    name: str | None
    dir: str
    suffix: str
    keep_inputs: bool


@dataclass
class ArmsConfig:
    ranks: list[int] | None
    seeds: list[int] | None
    lrs: list[float] | None
    controls: list[str]
    list: Any  # None, or a list of what arms are: its keys and types are checked where it is read
    projections: Any  # a list of names, or one
    alpha: float
    scaling: str
    dropout: float


@dataclass
class ProjectionsConfig:
    q: str | None
    v: str | None


@dataclass
class PretrainConfig:
    layers: int
    width: int
    intermediate: int
    heads: int
    steps: int
    rows: int
    muon: bool


@dataclass
class ModelConfig:
    path: str
    dtype: str
    lr: float
    gradient_checkpointing: bool
    projections: ProjectionsConfig
    pretrain: PretrainConfig | None = None
    labels: int | None = None


@dataclass
class DataConfig:
    name: str
    source: dict[str, Any]
    validation: int
    max_length: int
    eos: bool
    batch: int
    micro_batch: int | None
    packing: bool
    path: str | None = None
    config: str | None = None
    split: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    text: Any = None  # a name, or two
    label: str | None = None
    max_completion: int | None = None
    cache: str | None = None


@dataclass
class OptimConfig:
    lr: float
    warmup: float
    weight_decay: float
    clip: float
    label_smoothing: float
    max_skipped: int


@dataclass
class TrainerConfig:
    max_steps: int
    accelerator: str
    devices: Any
    num_nodes: int
    precision: str


@dataclass
class DeviceConfig:
    memory: float | None
    bandwidth: float | None
    speed: float


@dataclass
class SnapshotsConfig:
    every: int


@dataclass
class MetricsConfig:
    every: int
    validate_every: int


@dataclass
class TrainConfig:
    """All that `train.py` is told."""

    task: str
    plan: bool
    run: RunConfig
    arms: ArmsConfig
    model: ModelConfig
    data: DataConfig
    optim: OptimConfig
    trainer: TrainerConfig
    device: DeviceConfig
    engine: str
    timeout: float
    dry_run: bool
    snapshots: SnapshotsConfig
    metrics: MetricsConfig
    logger: dict[str, Any] | None = None


@dataclass
class AnalyzeConfig:
    """All that `analyze.py` is told."""

    run: str | None
    left: str | None
    right: str | None
    step: int | str
    left_start: str | None
    right_start: str | None
    basis: str
    exhibits: Any  # a list of names, or one
    projections: Any  # the same
    layers: list[int] | None
    base: str | None
    device: str
    output: str | None


def names_in(given: Any) -> list[str]:
    """What may be given as a list of names, or as one by itself, as exhibits=all."""
    return [given] if isinstance(given, str) else [str(name) for name in given or []]


def register() -> None:
    """Let the YAML find its types."""
    ConfigStore.instance().store("train_schema", TrainConfig)
    ConfigStore.instance().store("analyze_schema", AnalyzeConfig)
