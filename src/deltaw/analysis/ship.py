"""An adapter cut to a smaller rank, as a folder that PEFT loads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from deltaw.analysis.output import SHIP
from deltaw.maths.cut import cut
from deltaw.run.adapter import Adapter
from deltaw.run.peft_files import CONFIG, WEIGHTS, with_ranks
from deltaw.run.tensors import read_metadata
from deltaw.run.writer import write_adapter


@dataclass(frozen=True)
class CutAdapter:
    """An adapter with the best approximation of ΔW by `rank` directions at every site.

    The scale of every site stays, and so do sites of at most this rank, heads, the dtype and the metadata.

    Attributes:
        adapter: a snapshot of a run, where each site is a module of its own.
        rank: of every site that has a larger one.
    """

    adapter: Adapter
    rank: int

    @property
    def folder(self) -> str:
        """Its folder within an analysis, as ship/r64-s0-cut16."""
        return f"{SHIP}/{self.adapter.name}-cut{self.rank}"

    @property
    def files(self) -> list[str]:
        """What `write` writes, by the paths within an analysis."""
        return [f"{self.folder}/{name}" for name in (CONFIG, WEIGHTS)]

    def write(self, analysis: Path) -> None:
        """Write the adapter into a new analysis.

        Raises:
            UserError: the snapshot cannot be read.
        """
        config: dict[str, Any] = json.loads((self.adapter.folder / CONFIG).read_text(encoding="utf-8"))
        tensors, layers = load_file(self.adapter.folder / WEIGHTS), {}
        for site, lora in self.adapter.sites.items():
            layers[site.module] = (lora.rank, lora.scale)
            if lora.rank > self.rank:
                A, B = cut(self.adapter.A(site), self.adapter.B(site), self.rank)
                layers[site.module] = (len(A), lora.scale)
                for factor, whole in zip((A, B), self.adapter.tensors[site], strict=True):
                    tensors[whole.name] = factor.contiguous()
        metadata = read_metadata(self.adapter.folder / WEIGHTS)
        write_adapter(analysis / self.folder, tensors, with_ranks(config, layers), metadata)
