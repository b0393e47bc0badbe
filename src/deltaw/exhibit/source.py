"""What a figure says of its origin and of its projections: the models, the data sets, short titles."""

import re
from collections.abc import Iterable
from pathlib import PureWindowsPath

import pandas as pd

from deltaw.model.names import projection_of
from deltaw.run.adapter import Adapter
from deltaw.run.directory import RunDirectory

_STACKS = ("encoder", "decoder")
_CROSS = re.compile(r"cross|encdec|encoder_attn", re.IGNORECASE)  # T5's EncDecAttention, BART's encoder_attn


def source_of(adapters: Iterable[Adapter]) -> dict[str, list[str]]:
    """The names of the models and of the data sets under "model" and "data", as far as they are known.

    A run has recorded both; the config of an adapter outside of a run may name its model.
    """
    adapters = list(adapters)
    runs = dict.fromkeys(adapter.origin.run for adapter in adapters if adapter.origin)
    records = [RunDirectory(run).record for run in runs]
    models = [_model(record.base.get("path") or record.base["name"]) for record in records]
    models += [_model(adapter.base) for adapter in adapters if not adapter.origin and adapter.base]
    data = [record.data["name"] for record in records if "name" in record.data]
    return {"model": list(dict.fromkeys(models)), "data": list(dict.fromkeys(data))}


def with_titles(table: pd.DataFrame) -> pd.DataFrame:
    """The table with short titles for the projections of an encoder-decoder, as "decoder cross q" for a path."""
    titles = {projection: _title(projection) for projection in table.projection.unique()}
    unique = len(set(titles.values())) == len(titles)
    return table.assign(projection=table.projection.map(titles)) if unique else table


def _title(projection: str) -> str:
    stack = next((part for part in projection.split(".") if part in _STACKS), None)
    if stack is None or "." not in projection:
        return projection
    cross = ["cross"] if _CROSS.search(projection) else []
    return " ".join([stack, *cross, projection_of(projection)])


def _model(base: str) -> str:
    """The last part of a hub name or of a folder, Windows' too; in the hub's cache the model, not the commit."""
    cached = re.search(r"models--(?:[^/\\]+--)?([^/\\]+)[/\\]snapshots", base)
    return cached[1] if cached else PureWindowsPath(base).name
