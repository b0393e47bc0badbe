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
    try:
        if (place / "dataset_dict.json").is_file():
            return load_from_disk(path)[split]
        if (place / "state.json").is_file():
            return load_from_disk(path)
        if place.is_file():  # to the library, all of it is "train"
            rows = re.sub(r"^\w+", "train", split)
            return load_dataset(str(place.parent), data_files=place.name, split=rows)
        return load_dataset(path, config, split=split)
    except Exception as error:  # builders, file systems and the hub fail in many ways
        raise UserError(
            f"{path} with data.config={config} and split {split} is no data set that could be read "
            f"({type(error).__name__}: {' '.join(str(error).split())}): give a data set, its configuration and a split"
        ) from error
