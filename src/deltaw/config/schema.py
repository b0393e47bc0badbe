"""The one place that describes every key of `conf/*.yaml`: a wrong key or type is an error before anything is loaded.

The comments of the YAML begin with the meanings below, and add defaults and choices. What each key says about a run
(its limit, and whether it is part of the identity or the name) is read by `deltaw.config.limits`,
`deltaw.run.identity` and `deltaw.commands.sweep`.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from deltaw.config.folder import CONF
from deltaw.config.keys import (
    ONE_OR_MORE,
    POSITIVE,
    POSITIVE_AND_FINITE,
    SHARE,
    SHARE_BELOW_ONE,
    SHARE_BETWEEN,
    TWO_OR_MORE,
    ZERO_OR_MORE,
    Key,
    Limit,
    one_of,
)

TASKS = ("causal", "seq2seq", "classification")
ENGINES = ("auto", "single", "ddp", "fsdp")
# Factors in half precision lose the small steps of late training, and one gradient scaler would couple the arms.
PRECISIONS = ("32-true", "bf16-mixed", "64-true")
SHIP = Limit("ship, or leave it out", lambda value: value == "ship")
NF4 = "nf4"  # the model.dtype of a base in 4 bits
NAME = r"(?!\.)[A-Za-z0-9._-]{1,200}"  # of runs and arms: each names a directory, with room for what is added to it


@dataclass
class RunConfig:
    name: Annotated[str | None, Key("name of the run: letters, digits, '.', '_' and '-'")]
    suffix: Annotated[str, Key("end of the default name; a sweep puts its overrides here")]
    dir: Annotated[str, Key("directory of the run", identity=False)]


@dataclass
class ArmsConfig:
    ranks: Annotated[list[int] | None, Key("rank r of each arm", limit=ONE_OR_MORE, in_name=True)]
    seeds: Annotated[list[int] | None, Key("seed of A's start and of the order of the examples", in_name=True)]
    lrs: Annotated[list[float] | None, Key("peak learning rate of each arm", limit=POSITIVE_AND_FINITE, in_name=True)]
    controls: Annotated[list[str], Key("arms to compare the task's arms with", in_name=True)]
    list: Annotated[Any, Key("arms one by one, in place of the four keys above", in_name=True)]
    projections: Annotated[Any, Key("projections that get factors")]  # a list of names, or one
    alpha: Annotated[float, Key("numerator of the scale", limit=POSITIVE_AND_FINITE)]
    scaling: Annotated[str, Key("scale of ΔW = scale · BA")]
    dropout: Annotated[float, Key("share of LoRA's inputs that training sets to zero", limit=SHARE_BELOW_ONE)]
    shadows: Annotated[int, Key("shadows of each arm of the task", limit=ZERO_OR_MORE)]


@dataclass
class ProjectionsConfig:
    q: Annotated[str | None, Key("how the names of the modules for q end")]
    v: Annotated[str | None, Key("how the names of the modules for v end")]


@dataclass
class PretrainConfig:
    layers: Annotated[int, Key("depth of the decoder", "layers", ONE_OR_MORE)]
    width: Annotated[int, Key("width of the decoder", limit=ONE_OR_MORE)]
    intermediate: Annotated[int, Key("width within a feed-forward block", limit=ONE_OR_MORE)]
    heads: Annotated[int, Key("attention heads of a layer", limit=ONE_OR_MORE)]
    steps: Annotated[int, Key("length of the pretraining", "optimiser steps", ONE_OR_MORE)]
    rows: Annotated[int, Key("size of the batch", "windows of 256 tokens", ONE_OR_MORE)]
    muon: Annotated[bool, Key("Muon and products in bfloat16; false: AdamW in float32")]


@dataclass
class ModelConfig:
    path: Annotated[str, Key("a local folder or a name on the hub: config.json, safetensors, tokenizer", in_name=True)]
    dtype: Annotated[str, Key("dtype of the frozen base")]
    lr: Annotated[float, Key("default of optim.lr")]
    gradient_checkpointing: Annotated[
        bool, Key("compute layers again in the backward pass, to keep fewer activations", identity=False)
    ]
    projections: Annotated[ProjectionsConfig, Key("how the names of the modules for q and v end")]
    pretrain: Annotated[PretrainConfig | None, Key("pretrain a Llama at model.path, if nothing is there")] = None
    labels: Annotated[int | None, Key("classes of task=classification", limit=TWO_OR_MORE)] = None
    compile: Annotated[bool, Key("compile each layer by torch.compile when it runs first", identity=False)] = False


@dataclass
class DataConfig:
    name: Annotated[str, Key("name of the data set within the default name of a run")]
    source: Annotated[dict[str, Any], Key("class that reads the examples, with its arguments")]
    validation: Annotated[int, Key("examples held out for validation", limit=ONE_OR_MORE)]
    judged: Annotated[int | None, Key("examples set aside to judge the final advice by", limit=ZERO_OR_MORE)]
    max_length: Annotated[int, Key("length of prompt and completion at most", "tokens", TWO_OR_MORE)]
    eos: Annotated[bool, Key("end each completion with the tokenizer's end of text")]
    batch: Annotated[int, Key("examples of one arm per optimiser step, over all devices", limit=ONE_OR_MORE)]
    micro_batch: Annotated[
        int | None, Key("most examples of one arm per forward pass of one device", limit=ONE_OR_MORE, identity=False)
    ]
    packing: Annotated[
        bool | None, Key("put several examples into one row; attention does not cross them", identity=False)
    ]
    path: Annotated[str | None, Key("place of the examples", in_name=True)] = None
    validation_path: Annotated[str | None, Key("place of examples held out by the user, with the same fields")] = None
    validation_split: Annotated[str | None, Key("split to hold out, of data.validation_path or else of data.path")] = (
        None
    )
    group: Annotated[str | None, Key("field whose examples of one value stay on one side: learnt or held out")] = None
    # The default name shows this key as well, but a sweep over it also adds a suffix: existing runs have such names.
    config: Annotated[str | None, Key("one of the configurations of the data set")] = None
    split: Annotated[str | None, Key("split of the data set, or a part of it")] = None
    prompt: Annotated[str | None, Key("field that the arms read, or a template of fields")] = None
    completion: Annotated[str | None, Key("field or template that the arms learn")] = None
    messages: Annotated[str | None, Key("field with the turns of a chat; the arms learn the assistant's")] = None
    text: Annotated[Any, Key("field or template that the arms learn whole, or classify; or two")] = None
    label: Annotated[str | None, Key("field with the class of the text, by number or name")] = None
    max_completion: Annotated[int | None, Key("length of seq2seq's completion at most", "tokens", ONE_OR_MORE)] = None
    cache: Annotated[str | None, Key("folder that keeps tokens for the next run", identity=False)] = None


@dataclass
class OptimConfig:
    lr: Annotated[float, Key("peak learning rate", limit=POSITIVE_AND_FINITE)]
    warmup: Annotated[float, Key("share of all steps in which the learning rate rises", limit=SHARE)]
    weight_decay: Annotated[float, Key("AdamW's weight decay", limit=SHARE_BELOW_ONE)]
    clip: Annotated[float, Key("largest norm of one arm's gradient", limit=POSITIVE)]
    label_smoothing: Annotated[float, Key("share of each label that goes to all classes alike", limit=SHARE_BELOW_ONE)]
    max_skipped: Annotated[int, Key("steps without a finite gradient before an arm stops learning", limit=ONE_OR_MORE)]


@dataclass
class TrainerConfig:
    max_steps: Annotated[int, Key("length of the run", "optimiser steps", ONE_OR_MORE)]
    accelerator: Annotated[str, Key("Lightning's accelerator", identity=False)]
    devices: Annotated[Any, Key("devices of each machine: a number, or a list of their numbers", identity=False)]
    num_nodes: Annotated[int, Key("machines", limit=ONE_OR_MORE, identity=False)]
    precision: Annotated[
        str, Key("precision of the factors, at least 32 bits; model.dtype is the base's", limit=one_of(*PRECISIONS))
    ]


@dataclass
class HardwareConfig:
    """What a plan assumes of one device. The config key is `device`, whose namesake in `analyze` is a torch device."""

    memory: Annotated[float | None, Key("memory of one device", "GiB", POSITIVE, identity=False)]
    bandwidth: Annotated[float | None, Key("speed of the links to one device", "GB/s", POSITIVE, identity=False)]
    speed: Annotated[float, Key("speed of one device in practice", "TFLOP/s", POSITIVE, identity=False)]


@dataclass
class SnapshotsConfig:
    every: Annotated[int, Key("distance between snapshots", "optimiser steps", ONE_OR_MORE, identity=False)]


@dataclass
class MetricsConfig:
    every: Annotated[
        int, Key("distance between records of the training loss", "optimiser steps", ONE_OR_MORE, identity=False)
    ]
    validate_every: Annotated[int, Key("distance between validations", "optimiser steps", ONE_OR_MORE, identity=False)]


@dataclass
class TrainConfig:
    """Every key of `deltaw train`."""

    task: Annotated[str, Key("what the arms learn", limit=one_of(*TASKS))]
    plan: Annotated[bool, Key("print what the run takes, and start nothing", identity=False)]
    run: Annotated[RunConfig, Key("where the run is written")]
    arms: Annotated[ArmsConfig, Key("one arm per rank × seed × learning rate × (the task and every control)")]
    model: Annotated[ModelConfig, Key("frozen base", in_name=True)]
    data: Annotated[DataConfig, Key("examples", in_name=True)]
    optim: Annotated[OptimConfig, Key("AdamW, with a parameter group per arm")]
    trainer: Annotated[TrainerConfig, Key("Lightning's Trainer")]
    device: Annotated[HardwareConfig, Key("hardware that plan=true and engine=auto assume of one device")]
    engine: Annotated[str, Key("how processes share the base", limit=one_of(*ENGINES), identity=False)]
    timeout: Annotated[float, Key("how long a process waits for the others", "seconds", POSITIVE, identity=False)]
    dry_run: Annotated[bool, Key("print config, command and devices, and start nothing", identity=False)]
    snapshots: Annotated[SnapshotsConfig, Key("copies of the factors during training")]
    metrics: Annotated[MetricsConfig, Key("losses in metrics.csv")]
    truncate: Annotated[
        list[int], Key("ranks to cut the arms of the largest rank to, and to judge", limit=ONE_OR_MORE, identity=False)
    ]
    truncate_sites: Annotated[bool, Key("judge the largest arm without each part of its sites", identity=False)]
    logger: Annotated[dict[str, Any] | None, Key("one of Lightning's loggers", identity=False)] = None


@dataclass
class AnalyzeConfig:
    """Every key of `deltaw analyze`."""

    run: Annotated[Any, Key("a run directory, or several of one experiment")]  # a list of paths, or one
    left: Annotated[str | None, Key("an arm of the run, a run of one arm, or a folder with adapter_config.json")]
    right: Annotated[str | None, Key("the same")]
    others: Annotated[Any, Key("more adapters to merge with left and right")]  # a list of paths, or one
    step: Annotated[int | str, Key("snapshot of an arm, by its step")]
    left_start: Annotated[str | None, Key("an adapter folder with the left adapter before its first step")]
    right_start: Annotated[str | None, Key("the same for the right adapter")]
    basis: Annotated[str, Key("whose directions are compared")]
    exhibits: Annotated[Any, Key("figures and tables to draw")]  # a list of names, or one
    projections: Annotated[Any, Key("projections that exhibits and summary show")]  # a list of names, or one
    layers: Annotated[list[int] | None, Key("layers that exhibits and summary show, counted from 1")]
    base: Annotated[str | None, Key("the base's folder: its weights for fig8 and table7, its config for fused layers")]
    margin: Annotated[float, Key("share of the gain that may be given up for a smaller rank", limit=SHARE_BETWEEN)]
    advice: Annotated[str | None, Key("ship: also write the cut that the advice ships", limit=SHIP)]
    device: Annotated[str, Key("torch device that multiplies the factors")]
    output: Annotated[str | None, Key("folder of the analysis")]


def names_in(given: Any) -> list[str]:
    """The names in a list of them, or the one name that stands by itself, as in exhibits=all."""
    return [given] if isinstance(given, str) else [str(name) for name in given or []]


def register() -> None:
    """Give Hydra the types that the YAML names in its `defaults`, and `${shipped:…}`, a path in the configs' folder."""
    OmegaConf.register_new_resolver("shipped", lambda path: str(CONF / path), replace=True)
    ConfigStore.instance().store("train_schema", TrainConfig)
    ConfigStore.instance().store("analyze_schema", AnalyzeConfig)
