"""Build what a config describes: the arms, the data set, the base and the objective."""

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from deltaw.config.schema import NF4, names_in
from deltaw.data.corpus import Corpus, cache_folder, cached_corpus
from deltaw.data.data_set import DataSet
from deltaw.data.encode import encoder_for
from deltaw.data.hub import check_other_split, whole
from deltaw.data.reader import Columns
from deltaw.data.record import Source
from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.lora.arms import arms_from
from deltaw.model.four_bits import quantise
from deltaw.model.gated_mlp import shorten_gated_mlps
from deltaw.model.last_layer import Tail, tail_of
from deltaw.model.loading import Base, load_base
from deltaw.model.output_layer import body_of
from deltaw.model.packed_attention import Attention, attention_of, by_positions
from deltaw.model.products import use_onednn
from deltaw.model.projections import projections
from deltaw.model.rms_norm import shorten_derivatives
from deltaw.model.rotary import shorten_rotations
from deltaw.model.split import split
from deltaw.training.objectives import Causal, Classification, Objective, Seq2Seq


def arms_of(cfg: DictConfig) -> list[Arm]:
    """The arms of a config.

    Raises:
        UserError: a setting of an arm is impossible, or two arms are the same.
    """
    settings: Any = OmegaConf.to_container(cfg.arms, resolve=True)
    listed = settings.pop("list")
    del settings["projections"], settings["shadows"]
    return arms_from(**settings, listed=listed, default_lr=cfg.optim.lr)


def data_of(data: DictConfig, task: str) -> DataSet:
    """The data set of a config, of which the first rows are read: it takes no tokenizer.

    Args:
        data: `cfg.data`.
        task: causal, seq2seq or classification.

    Raises:
        UserError: the data cannot be read, or the task cannot use their fields.
    """
    source = instantiate(data.source, _partial_=True)  # called here, so that Hydra does not wrap its errors
    columns = Columns(**{name: data[name] for name in Columns.__dataclass_fields__})
    held_out = _held_out(data)
    validation: Source | None = source(**held_out) if held_out else None
    return DataSet(source(), columns, task, data.group, validation)


def _held_out(data: DictConfig) -> dict[str, str]:
    """What the source of the rows to hold out reads in place of data.path and data.split; empty if there is none."""
    given = {"path": data.validation_path, "split": data.validation_split}
    given = {name: value for name, value in given.items() if value is not None}
    if unread := given.keys() - data.source.keys():
        others = {"path": "data=jsonl or data=hub", "split": "data=hub, or data.validation_path=FILE"}
        raise UserError(f"data={data.name} does not read data.validation_{min(unread)}: give {others[min(unread)]}")
    if given.keys() == {"split"}:
        check_other_split(data.path, data.split, data.validation_split)
    if given.keys() == {"path"} and "split" in data.source:
        given["split"] = whole(data.validation_path, data.split)  # a part of data.path is no part of another data set
    return given


def corpus_of(data: DictConfig, task: str, tokenizer: PreTrainedTokenizerBase) -> Corpus:
    """The data set of a config, tokenised.

    Args:
        data: `cfg.data`.
        task: causal, seq2seq or classification.
        tokenizer: the base's.

    Raises:
        UserError: the data cannot be read, or the task cannot use their fields.
    """
    rows = data_of(data, task)
    encoder = encoder_for(task, tokenizer, data.max_length, data.max_completion, data.eos, rows.classes)
    return cached_corpus(rows, encoder, cache_folder(data.cache))


def base_of(cfg: DictConfig, tokenizer: PreTrainedTokenizerBase, corpus: Corpus) -> Base:
    """The base of the run, loaded for its task.

    Raises:
        UserError: the model cannot be loaded for the task, or the labels do not fit the data.
    """
    if not sys.stderr.isatty():
        disable_progress_bar()  # transformers' bar would write carriage returns to a file
    labels = label_count(cfg.model.labels, corpus.labels) if cfg.task == "classification" else None
    return load_base(cfg.model.path, tokenizer, cfg.model.dtype, cfg.model.gradient_checkpointing, cfg.task, labels)


def prepare_base(cfg: DictConfig, base: Base) -> dict[str, str]:
    """Make a base ready for arms: split fused layers, quantise to 4 bits, hasten steps, and find what to adapt.

    Args:
        cfg: the config of the run.
        base: changed in place. On the meta device it is not quantised.

    Returns:
        The projection of each module to adapt by the module's name.

    Raises:
        UserError: the base lacks the projections.
    """
    wanted = names_in(cfg.arms.projections)
    split(base.model, wanted)
    if cfg.model.dtype == NF4 and base.model.device.type != "meta":
        quantise(base.model)
    shorten_derivatives(base.model)
    shorten_rotations(base.model)
    shorten_gated_mlps(base.model)
    use_onednn(base.model)
    return projections(base.model, wanted, cfg.model.projections)


def objective_of(cfg: DictConfig, base: Base, modules: Iterable[str]) -> Objective:
    """The objective of the task.

    Args:
        cfg: the config of the run.
        base: as `prepare_base` leaves it.
        modules: names of those to adapt.

    Raises:
        UserError: the base cannot pack examples, or does not give logits for each token.
    """
    if cfg.task == "classification":
        return Classification(base.pad)
    body = body_of(base.model)
    before_output = {module for part in body for module in part.modules()}
    if not before_output.issuperset(map(base.model.get_submodule, modules)):
        body = ()  # an arm behind it would get no gradient
    tail = _tail(cfg, base.model, modules)
    if cfg.task == "seq2seq":
        return Seq2Seq(base.pad, body if hasattr(base.model, "prepare_decoder_input_ids_from_labels") else (), tail)
    return Causal(base.pad, _packed_attention(cfg, base.model), body, tail)


def _tail(cfg: DictConfig, model: PreTrainedModel, modules: Iterable[str]) -> Tail:
    """What is run for labels alone; nothing where the layer runs again later, is compiled, or has shapes alone."""
    if cfg.model.gradient_checkpointing or cfg.model.compile or model.device.type == "meta":
        return ()
    return tail_of(model, modules)


def _packed_attention(cfg: DictConfig, model: PreTrainedModel) -> Attention | None:
    """What keeps the examples of a row apart; None for rows of one example each.

    On a CPU, packed rows take one pass where rows by length take four, and pad less. On a GPU nobody has measured it
    yet. Who gives data.micro_batch wants few examples in a pass, which leave little to pack. Dropout draws its masks
    for the tokens of rows, and which examples lie in an arm's packed rows depends on the other arms: an arm in company
    would no longer equal the arm alone.
    """
    packing = cfg.data.packing
    if packing is None and (cfg.data.micro_batch or cfg.arms.dropout or not on_cpu(cfg)):
        packing = False
    if packing is False:
        return None
    if model.device.type == "meta":
        return by_positions
    attention = attention_of(model)
    if packing and attention is None:
        raise UserError(
            f"{type(model).__name__} of {model.name_or_path} looks across the examples that share a row, so that "
            "data.packing=true would teach each to read its neighbours: give data.packing=false"
        )
    return attention


def on_cpu(cfg: DictConfig) -> bool:
    """Whether Lightning trains on a CPU: with accelerator=auto, where this machine has no GPU, Apple's included."""
    if cfg.trainer.accelerator != "auto":
        return bool(cfg.trainer.accelerator == "cpu")
    return not (gpus_here(cfg) or torch.backends.mps.is_available())


def gpus_here(cfg: DictConfig) -> int:
    """GPUs of this machine that the config allows; not Apple's, which share the memory of the machine."""
    return torch.cuda.device_count() if cfg.trainer.accelerator in ("auto", "gpu", "cuda") else 0


def label_count(given: int | None, found: Sequence[str]) -> int:
    """The number of labels of a classification: `given`, or as many as the data have.

    Raises:
        UserError: the data have more labels than `given`, or there is only one.
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
