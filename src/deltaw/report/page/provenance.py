"""Where the numbers of the page come from, and how to cite them."""

from collections.abc import Iterator, Sequence

import deltaw
from deltaw.report.numbers import Side, Summary
from deltaw.run.directory import RunDirectory

CITATION = f"""\
@software{{deltaw,
  title   = {{deltaw: which directions of ΔW two ranks of LoRA share}},
  author  = {{{{The deltaw maintainers}}}},
  version = {{{deltaw.__version__}}}
}}

@article{{hu2021lora,
  title   = {{LoRA: Low-Rank Adaptation of Large Language Models}},
  author  = {{Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and Li, Yuanzhi
             and Wang, Shean and Wang, Lu and Chen, Weizhu}},
  journal = {{arXiv preprint arXiv:2106.09685}},
  year    = {{2021}}
}}
"""


def provenance(summary: Summary, runs: Sequence[RunDirectory], command: str) -> Iterator[tuple[str, str]]:
    """Names, each with what it stands for: the adapters, then of each run its base, data, versions and machine."""
    for title, side in (("Left, i", summary.left), ("Right, j", summary.right)):
        yield title, _side(side)
    for run in runs:
        record, data = run.record, run.record.data
        yield "Run", str(run.path)
        precision = f", {record.base['dtype']}" if record.base.get("dtype") else ""
        yield "Base", f"{record.base['name']}{precision}, SHA-256 {record.base['sha256'][:12]}"
        counts = [f"{data[key]:,} {key}" for key in ("learnt", "validation", "judged") if key in data]
        yield "Data", ", ".join([data.get("name", "not recorded"), *counts, *_fingerprint(data.get("fingerprint"))])
        yield "Task", ", ".join(filter(None, [record.task, record.init]))
        yield "Versions", ", ".join(f"{name} {version}" for name, version in record.versions.items()) or "not recorded"
        yield "Machine", _machine(record.hardware)
    yield "This page", f"deltaw {deltaw.__version__}"
    yield "Command", command


def _side(side: Side) -> str:
    ranks = " to ".join(map(str, dict.fromkeys([side.smallest_rank, side.rank])))
    step = [] if side.step is None else [f"step {side.step}"]
    lr = [] if side.lr is None else [f"learning rate {side.lr:g}"]
    return ", ".join([side.name, f"rank {ranks}", *step, *lr, f"base {side.base or 'not named'}"])


def _fingerprint(fingerprint: str | None) -> list[str]:
    return [f"fingerprint {fingerprint[:12]}"] if fingerprint else []


def _machine(hardware: dict[str, object]) -> str:
    known = [f"{name} {value}" for name, value in hardware.items() if value not in ([], None, "")]
    return ", ".join(known) or "not recorded"
