"""Write the tables of README and docs: each from the results of a benchmark that are committed.

python benchmarks/tables.py

A table stands between `<!-- benchmarks/tables.py: NAME -->` and `<!-- end -->`; what is between them is replaced.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import analysis
import answer
import arms
import calibration
import controls
import data
import merge
import plan
import ship_level
import startup
import step
from advice_parts import words as advice
from results_file import RESULTS, machine_of
from training_parts import report as training

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]
MARK = "<!-- benchmarks/tables.py: "
BLOCK = re.compile(rf"({MARK}([a-z0-9-]+) -->\n)((?!<!--).)*?(<!-- end -->)", re.DOTALL)
CALIBRATED = ("calibration-bundled", "calibration-w128", "calibration-SmolLM2-135M-Instruct")
TRAINED = ("training-bundled", "training-bundled-epyc", "training-smollm2")

Found = dict[str, Any]


def of(name: str, *parts: Callable[[Found], str]) -> Callable[[], str]:
    """Tables of one file of results, and where it was measured."""

    def written() -> str:
        found = read(name)
        versions = f"Python {found['versions']['python']}, torch {found['versions']['torch'].partition('+')[0]}"
        return "\n\n".join([*(part(found) for part in parts), f"Measured on {machine_of(found)}; {versions}."])

    return written


TABLES: dict[str, Callable[[], str]] = {
    "training": lambda: training.table(map(read, TRAINED)),
    "training-in-short": lambda: training.table_in_short(map(read, TRAINED)),
    "training-paired": of("training-paired", training.table_of_pairs),
    "training-paired-in-short": lambda: training.sentences_of_pairs(read("training-paired"), map(read, TRAINED[:2])),
    "demo-in-short": lambda: answer.headline(read("demo")),
    "demo": lambda: answer.in_full(read("demo")),
    "smollm2-in-short": lambda: answer.headline(read("smollm2-rank")),
    "arms": of("arms", arms.table),
    "shadows": of("arms", arms.table_of_shadows),
    "startup": of("startup", startup.table),
    "step": of("step", step.table),
    "step-epyc": of("step-epyc", step.table),
    "data": of("data", data.table),
    "plan": of("plan", plan.table),
    "plan-in-short": lambda: plan.sentence(read("plan")),
    "analysis": of("analysis", analysis.table),
    "analysis-in-short": lambda: analysis.sentence(read("analysis")),
    "controls": of("controls", controls.table),
    "controls-in-short": of("controls", controls.table_in_short),
    "sites": of("controls", controls.table_of_sites),
    "losses-of-controls": of("controls", controls.table_of_losses),
    "gain": lambda: controls.sentence_of_losses(read("controls")),
    "orders": lambda: controls.sentence_of_orders(read("controls")),
    "spread": lambda: controls.sentence_of_spread(read("controls")),
    "calibration": lambda: calibration.table(map(read, CALIBRATED)),
    "false-calls": lambda: calibration.table_of_rates(map(read, CALIBRATED)),
    "ship-level": of("ship-level", ship_level.table),
    "merge": of("merge", merge.table, merge.sentences),
    "advice": lambda: advice.table_of_statements(read("advice")),
    "advice-in-short": lambda: advice.counts(read("advice")),
    "advice-circumstances": lambda: f"{advice.circumstances(read('advice'))} {advice.answer(read('advice'))}",
    "advice-patterns": lambda: advice.table_of_patterns(read("advice")),
    "advice-rates": lambda: advice.table_of_rates(read("advice")),
}


def main() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        if (new := with_tables(text)) != text:
            document.write_text(new, encoding="utf-8")
            print(document)


def with_tables(text: str) -> str:
    """The text with today's tables.

    Raises:
        ValueError: a table has no end.
        KeyError: there is no table of a name.
    """
    if text.count(MARK) != len(BLOCK.findall(text)):
        raise ValueError("a table has no name of small letters, or no <!-- end --> before the next mark")
    return BLOCK.sub(lambda block: f"{block[1]}{TABLES[block[2]]()}\n{block[4]}", text)


def read(name: str) -> Found:
    """What a benchmark found."""
    found: Found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    main()
