"""`run.json`: what a run is beside its config. Training writes it once, and the analysis reads it."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from deltaw.errors import UserError
from deltaw.run.files import replacing
from deltaw.run.json_files import misfit, read_json
from deltaw.run.weights import Weight

SHADOW = "shadow"  # the control of an arm's shadows
WITHOUT_THE_TASK = ("shuffled", "random")  # controls that learn something else


class BaseRecord(TypedDict):
    """The frozen base of a run."""

    name: str
    path: NotRequired[str]  # a folder, or a name of the hub
    sha256: str  # of the weights' files
    dtype: NotRequired[str]  # model.dtype


class ArmRecord(TypedDict):
    """One arm of a run; `deltaw.lora.arm.Arm` explains the settings."""

    name: str
    rank: int
    seed: int
    alpha: float
    scaling: str
    lr: float
    control: str | None
    rank_pattern: NotRequired[dict[str, int]]
    alpha_pattern: NotRequired[dict[str, float]]
    dropout: NotRequired[float]
    variant: NotRequired[str]  # another alpha or scaling than the run's, and patterns; a missing key means none
    scale: NotRequired[float]  # of B A in ΔW
    shadow: NotRequired[int]  # n for the n-th shadow of an arm; 0 or missing for an arm
    head_seed: NotRequired[int]  # only for a classification head that the base does not bring


class DataRecord(TypedDict, total=False):
    """The data set of a run, with counts of its examples."""

    name: str
    examples: int
    shortened: int
    dropped: int
    labels: list[str]
    fingerprint: str  # SHA-256 over the content
    rows: int  # that gave the examples
    validation_path: str | None
    group: str | None  # the field whose values tell the groups
    learnt: int
    validation: int
    judged: int
    left_out: int  # neither learned nor held out, because others of their group are held out


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What `run.json` tells, in the order of the file. Fields with a default are missing in records of older versions.

    Attributes:
        name: run.name.
        base: the frozen base.
        task: causal, seq2seq or classification.
        arms: in the order in which the config asks for them.
        init: how A and B start, in words.
        modules: the projection of each adapted module, by the module's name.
        heads: where the head that each arm trains comes from, by the head's module.
        weights: where the frozen W of each adapted module lies, by the module's name; empty if no file has them.
        data: the data set.
        versions: of Python and of the packages that train.
        hardware: processor, number of CPUs, names of the GPUs.
    """

    name: str = ""
    base: BaseRecord
    task: str = "causal"
    arms: list[ArmRecord]
    init: str = ""
    modules: dict[str, str] = field(default_factory=dict)
    heads: dict[str, str] = field(default_factory=dict)
    weights: dict[str, Weight] = field(default_factory=dict)
    data: DataRecord = field(default_factory=DataRecord)
    versions: dict[str, str] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "RunRecord":
        """Read a record; keys that this version does not know are ignored.

        Raises:
            UserError: the file is missing or broken, lacks the base or the arms, or a value is not of its type.
        """
        try:
            record = read_json(path)
        except FileNotFoundError:
            runs = sorted(path.parent.glob(f"*/{path.name}"))
            example = f", as {runs[-1].parent}" if runs else ""
            raise UserError(f"{path} is missing: give a run directory that deltaw train wrote{example}") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): train the run again") from None
        if not isinstance(record, dict) or not {"base", "arms"} <= record.keys():
            raise UserError(f"{path} does not tell the run's base and arms: train the run again")
        if wrong := misfit(record, cls) or _misnamed(record["arms"]):
            raise UserError(f"{path}: {wrong}: put it right, or train the run again")
        known = {one.name: record[one.name] for one in fields(cls) if one.name in record}
        weights = {module: Weight.from_json(place) for module, place in known.pop("weights", {}).items()}
        return cls(**known, weights=weights)

    def save(self, path: Path) -> None:
        """Write the record; a process that is killed leaves the old file or the new one."""
        with replacing(path) as new:
            new.write_text(json.dumps(asdict(self), indent=2) + "\n")


def _misnamed(arms: list[ArmRecord]) -> str | None:
    """An arm whose name cannot be that of its folder, or is another arm's too, in words; None if there is none."""
    names = [arm["name"] for arm in arms]
    for name in names:
        if name in ("", ".", "..") or not name.isprintable() or "/" in name:
            return f"an arm is called {name!r}, which is no name of a folder"
        if names.count(name) > 1:
            return f"two arms are called {name!r}"
    return None


def name_of_shadow(arm: str, number: int) -> str:
    """The name of an arm's shadow; `number` counts from 1."""
    return f"{arm}-shadow{number}"


def settings_of(arm: ArmRecord, **overridden: object) -> tuple[object, ...]:
    """All settings of an arm but its control, with the given fields overridden; a control shares them with its arm.

    Alpha, scaling and dropout tell arms of different runs apart: within a run, the variant does.
    """
    settings = {"variant": "", "dropout": 0.0} | arm | overridden
    return tuple(settings[key] for key in ("rank", "seed", "lr", "variant", "alpha", "scaling", "dropout"))
