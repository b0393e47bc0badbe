"""What a config describes, built: arms, the data set, and a base that is ready for the arms."""

from collections.abc import Sequence
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedTokenizerBase

from deltaw.config.schema import NF4, names_in
from deltaw.data.corpus import Corpus, cache_folder, tokenised
from deltaw.data.encode import Encoder
from deltaw.data.record import Columns, Source
from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.lora.arms import arms_from
from deltaw.model.four_bits import quantise
from deltaw.model.loading import Base
from deltaw.model.names import projections
from deltaw.model.packed_attention import attention_of
from deltaw.model.split import split
from deltaw.training.objectives import OBJECTIVES, Causal, Objective


def arms_of(cfg: DictConfig) -> list[Arm]:
    """The arms that `cfg` asks for.

    Raises:
        UserError: they cannot be, or are not all different.
    """
    asked: Any = OmegaConf.to_container(cfg.arms, resolve=True)
    listed, _ = asked.pop("list"), asked.pop("projections")
    return arms_from(**asked, listed=listed, default_lr=cfg.optim.lr)


def corpus_of(data: DictConfig, task: str, tokenizer: PreTrainedTokenizerBase) -> Corpus:
    """The data set that `data` describes, tokenised for a task: causal, seq2seq or classification.

    Raises:
        UserError: it cannot be read, or is not what the task reads.
    """
    source: Source = instantiate(data.source, _partial_=True)()  # so that its errors come unwrapped
    columns = Columns(**{name: data[name] for name in Columns.__dataclass_fields__})
    classes = source.classes(*columns.of("label")) if task == "classification" else None
    encoder = Encoder(tokenizer, task, data.max_length, data.max_completion, data.eos, classes)
    return tokenised(source, columns, encoder, cache_folder(data.cache))


def prepared(cfg: DictConfig, base: Base) -> tuple[dict[str, str], Objective]:
    """A base made ready for arms: the projection of each module to adapt by the module's name, and the objective.

    Args:
        cfg: of the run.
        base: changed in place. On the meta device it is neither put in 4 bits nor tried for packing.

    Raises:
        UserError: the base is none for packing, or has not the projections asked for.
    """
    wanted, objective = names_in(cfg.arms.projections), OBJECTIVES[cfg.task](base.pad)
    split(base.model, wanted)
    if base.model.device.type != "meta":
        if cfg.model.dtype == NF4:
            quantise(base.model)
        if cfg.data.packing:
            objective = Causal(base.pad, attention_of(base.model))
    return projections(base.model, wanted, cfg.model.projections), objective


def label_count(given: int | None, found: Sequence[str]) -> int:
    """How many labels a classifier tells apart: `given`, or as many as the data have.

    Raises:
        UserError: the data have more, or there is one label alone.
    """
    count = len(found) if given is None else given
    if len(found) > count:
        raise UserError(
            f"the data have {len(found)} labels, among them {found[-1]!r}, and model.labels={count}: give more"
        )
    if count < 2:
        raise UserError(
            f"a classification into {count} label has nothing to learn: give data with two, or model.labels"
        )
    return count
