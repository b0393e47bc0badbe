"""The answer of `deltaw analyze`, as JSON: its sentences, and the numbers behind them.

make demo
python benchmarks/answer.py runs/bundled-calls-r8-s0_r64-s0 --out benchmarks/results/demo.json
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from results_file import measured_on

from deltaw.run.directory import RunDirectory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True, help="a file of results")
    given = parser.parse_args()
    record = RunDirectory(given.run).record
    trained = {"hardware": record.hardware, "versions": record.versions}
    found = measured_on() | {"trained_on": trained, "advice": advice_on(given.run)}
    given.out.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(in_full(found), given.out, sep="\n\n")


def advice_on(run: Path) -> dict[str, Any]:
    """The advice as an analysis of the run leaves it."""
    with tempfile.TemporaryDirectory() as folder:
        where = [f"run={run}", f"output={folder}/analysis", "exhibits=[]"]
        subprocess.run([sys.executable, "-m", "deltaw", "analyze", *where], check=True, stdout=sys.stderr)
        summary = json.loads(Path(folder, "analysis", "summary.json").read_text(encoding="utf-8"))
    advice: dict[str, Any] = summary["advice"]
    return advice


def headline(found: dict[str, Any]) -> str:
    """The answer in a sentence, as a quotation."""
    return f"> {_sentences(found)[0]}"


def in_full(found: dict[str, Any]) -> str:
    """All of its sentences, as the terminal has them."""
    return "\n".join(["```", *_sentences(found), "```"])


def _sentences(found: dict[str, Any]) -> list[str]:
    sentences: list[str] = found["advice"]["sentences"]
    return sentences


if __name__ == "__main__":
    main()
