"""Any data set that the library `datasets` reads, from the hub or a local folder."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deltaw.data.record import Row, fingerprint
from deltaw.errors import UserError
from deltaw.model.hub import look_for_the_hub

# No data set on the hub has a name that ends so.
_FILES = (".json", ".jsonl", ".parquet", ".csv", ".tsv", ".arrow", ".txt", ".gz", ".zst")
_SAVED = ("dataset_dict.json", "state.json")  # one of them is in a folder that `save_to_disk` wrote


class HubDataset:
    """A split of a data set of Hugging Face; the library keeps it on disk and maps it into memory.

    Args:
        path: a name on the hub; a parquet, csv or json file, compressed or not, or a folder of such; or a folder that
            `save_to_disk` wrote.
        config: which of the data set's configurations, if it has several.
        split: as "train" or "train[:10%]"; a folder that `save_to_disk` wrote takes a name without slice.

    Raises:
        UserError: `datasets` is not installed; or data set, configuration or split does not exist or is empty.
    """

    def __init__(self, path: str, config: str | None, split: str):
        self.name = f"{path} ({split})"
        self.table = _load(path, config, split)

    def head(self) -> tuple[str, list[str]]:
        return self.name, list(self.table.column_names)

    def classes(self, field: str) -> list[str] | None:
        names: list[str] | None = getattr(self.table.features.get(field), "names", None)
        return names

    def fingerprint(self, fields: list[str]) -> str:
        return fingerprint(json.dumps(row, sort_keys=True, default=str) for _, row in self.rows(fields))

    def rows(self, fields: list[str]) -> Iterator[tuple[str, Row]]:
        n = 0
        for batch in self.table.select_columns(fields).iter(1000):  # other columns may hold images, slow to decode
            for values in zip(*batch.values(), strict=True):
                yield f"row {n} of {self.name}", dict(zip(batch, values, strict=True))
                n += 1


def whole(path: str, split: str) -> str:
    """The split that `split` is a part of; all of a file is "train"."""
    return "train" if Path(path).is_file() else re.sub(r"\[[^]]*\]", "", split)


def check_other_split(path: str, split: str, held_out: str) -> None:
    """Refuse a split to hold out that is no other than the split to learn.

    Args:
        path: the data set.
        split: to learn.
        held_out: to hold out.

    Raises:
        UserError: `path` has no splits, as a file has none; or all that is held out is learned as well.
    """
    name, is_file = re.sub(r"\[.*", "", held_out), Path(path).is_file()
    if (is_file and name != "train") or (Path(path) / "state.json").is_file():
        raise UserError(
            f"data.validation_split={held_out}, but data.path={path} is one {'file' if is_file else 'table'} "
            "and has no splits: give data.validation_path=FILE"
        )
    if "[" not in split and (is_file or split == name):
        raise UserError(
            f"data.validation_split={held_out} is learned too, as data.split={split} is all of it: give another split, "
            f"or two parts, as 'data.split={name}[:90%]' 'data.validation_split={name}[90%:]'"
        )


def _load(path: str, config: str | None, split: str) -> Any:
    place = Path(path)
    if not place.exists() and (path.startswith(("/", ".")) or path.count("/") > 1 or place.suffix in _FILES):
        raise UserError(f"{path} does not exist: give a file, a folder, or the name of a data set on the hub")
    if not place.exists():
        look_for_the_hub()  # before `datasets` is imported, which reads the answer then
    try:
        from datasets import (  # type: ignore[import-untyped]
            disable_progress_bars,
            load_dataset,
            load_from_disk,
        )
    except ImportError as error:
        raise UserError("data=hub needs the library datasets: pip install datasets") from error
    disable_progress_bars()
    if "[" in split and any((place / name).is_file() for name in _SAVED):
        raise UserError(
            f"split {split} is a part, and {path}, from save_to_disk, is read as a whole: give a split's name"
        )
    try:
        if (place / "dataset_dict.json").is_file():
            return load_from_disk(path)[split]
        if (place / "state.json").is_file():
            return load_from_disk(path)
        if place.is_file():  # to the library, all of it is "train"
            rows = re.sub(r"^\w+", "train", split)
            folder = place.parent.resolve()  # the library refuses "."
            return load_dataset(str(folder), data_files=place.name, split=rows)
        return load_dataset(str(place.resolve()) if place.is_dir() else path, config, split=split)
    except Exception as error:  # builders, file systems and the hub fail in many ways
        raise UserError(
            f"{path} with data.config={config} and split {split} is no data set that could be read "
            f"({type(error).__name__}: {' '.join(str(error).split())}): give a data set, its configuration and a split"
        ) from error
