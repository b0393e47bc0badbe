"""The schema describes every key, and the YAML says the same."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from deltaw.config.keys import Key, keys_of
from deltaw.config.limits import check
from deltaw.config.schema import AnalyzeConfig, TrainConfig
from deltaw.errors import UserError
from tests.support.tiny import ROOT

CONF = ROOT / "conf"
TRAIN, ANALYZE = dict(keys_of(TrainConfig)), dict(keys_of(AnalyzeConfig))
# Files whose comments explain the keys to a user, with the keys of the schema and the section that the file fills.
EXPLAINED: list[tuple[str, dict[str, Key], str]] = [
    ("train", TRAIN, ""),
    ("analyze", ANALYZE, ""),
    ("model/hub", TRAIN, "model."),
    ("data/jsonl", TRAIN, "data."),
    ("data/hub", TRAIN, "data."),
]


def values_in(file: str) -> dict[str, object]:
    """The keys and values of a YAML file, without Hydra's blocks."""
    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / f"{file}.yaml"))
    return {key: value for key, value in values.items() if key not in ("defaults", "hydra")}


def comments_in(file: str) -> Iterator[tuple[str, str]]:
    """Each key that has a comment, by its full name, with the comment; a comment may go on in the lines below."""
    sections: list[str] = []
    text = re.sub(r"\n +# ", " ", (CONF / f"{file}.yaml").read_text(encoding="utf-8"))
    for indent, key, comment in re.findall(r"^( *)(\w+):[^#\n]*(?:# (.*))?$", text, re.MULTILINE):
        sections = [*sections[: len(indent) // 2], key]
        if comment:
            yield ".".join(sections), comment


def train_config(*overrides: str) -> None:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        check(compose("train", list(overrides)))


@pytest.mark.parametrize(("file", "keys", "section"), EXPLAINED, ids=[file for file, _, _ in EXPLAINED])
def test_every_key_of_the_yaml_has_a_field(file: str, keys: dict[str, Key], section: str) -> None:
    for name, value in values_in(file).items():
        assert f"{section}{name}" in keys
        for inner in value if isinstance(value, dict) and f"{section}{name}" != "data.source" else ():
            assert f"{section}{name}.{inner}" in keys


def test_every_field_has_a_meaning_of_one_line() -> None:
    for name, key in [*TRAIN.items(), *ANALYZE.items()]:
        assert re.fullmatch(r"[^\n]{4,100}[^\n.]", key.meaning), name


@pytest.mark.parametrize(("file", "keys", "section"), EXPLAINED, ids=[file for file, _, _ in EXPLAINED])
def test_the_comments_of_the_yaml_begin_with_the_meanings(file: str, keys: dict[str, Key], section: str) -> None:
    comments = {f"{section}{name}": comment for name, comment in comments_in(file)}
    for name in comments.keys() & keys.keys():
        assert comments[name].startswith(keys[name].text)
    if file in ("train", "analyze"):
        groups = {"model", "data", "logger"}  # their keys stand in the files of the groups
        assert {name for name in keys if name.partition(".")[0] not in groups} == comments.keys() & keys.keys()


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("trainer.max_steps=0", "trainer.max_steps=0: give 1 or more (length of the run, in optimiser steps)"),
        ("data.max_length=1", "data.max_length=1: give 2 or more"),
        ("device.memory=0", "device.memory=0.0: give a number above 0 (memory of one device, in GiB)"),
        ("optim.lr=inf", "optim.lr=inf: give a finite number above 0"),
        ("optim.warmup=nan", "optim.warmup=nan: give a share, from 0 to 1"),
        ("optim.weight_decay=1", "optim.weight_decay=1.0: give a share, from 0 to less than 1"),
        ("engine=mpi", "engine=mpi: give one of auto, single, ddp, fsdp"),
        ("arms.ranks=[8,0]", "arms.ranks=0: give 1 or more"),
        ("model=deep96 model.pretrain.steps=0", "model.pretrain.steps=0: give 1 or more"),
        ("run.name=..", "run.name=.. names a directory: use 1 to 200 letters"),
        (f"run.name={'x' * 201}", "names a directory: use 1 to 200 letters"),
        ("run.dir=", "run.dir= is empty: leave it out, or give a value"),
        (f"run.dir=/tmp/{'x' * 256}", "has a name longer than 255 bytes: give a shorter path"),
    ],
)
def test_a_value_outside_the_limit_of_its_key_is_refused_with_the_limit(override: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        train_config(*override.split(" "))


@pytest.mark.parametrize(
    "override", ["data.micro_batch=null", "device.memory=null", "optim.warmup=1", "optim.clip=inf", "arms.dropout=0"]
)
def test_a_value_on_the_edge_of_its_limit_is_taken(override: str) -> None:
    train_config(override)


def test_a_resumed_run_may_change_what_touches_no_arm_alone() -> None:
    assert {name for name, key in TRAIN.items() if not key.identity} == {
        *("plan", "dry_run", "engine", "timeout", "run.dir", "data.micro_batch", "data.packing", "data.cache"),
        *("trainer.devices", "trainer.num_nodes", "trainer.accelerator"),
        *("device.memory", "device.bandwidth", "device.speed"),
        *("snapshots.every", "metrics.every", "metrics.validate_every", "logger"),
        *("model.gradient_checkpointing", "model.compile"),
        *("truncate", "truncate_sites"),
    }


def test_the_default_name_of_a_run_tells_its_arms_model_and_data() -> None:
    assert {name for name, key in TRAIN.items() if key.in_name} == {
        *("arms.ranks", "arms.seeds", "arms.lrs", "arms.controls", "arms.list"),
        *("model", "model.path", "data", "data.path"),
    }


def test_every_key_of_the_schema_stands_in_a_configuration_file() -> None:
    def written(group: str) -> set[str]:
        files = [Path(group) / path.stem for path in sorted((CONF / group).glob("*.yaml"))]
        return {f"{group}.{name}" for file in files for name in values_in(str(file))}

    assert {name for name in TRAIN if "." not in name} == values_in("train").keys() | {"model", "data", "logger"}
    for group in ("model", "data"):
        assert {name for name in TRAIN if re.fullmatch(rf"{group}\.\w+", name)} == written(group)
