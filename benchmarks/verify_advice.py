"""Is the advice right? It is made from a third of the judged examples, and checked on the others.

python benchmarks/verify_advice.py RUNS            prints Markdown, after about an hour on two cores
python benchmarks/verify_advice.py RUNS --toy      every stage at toy size
python benchmarks/verify_advice.py RUNS trainer.max_steps=300      with other settings of train.py in every stage

On the bundled base. Each stage is a run directory under RUNS:

    rates-1, …      learning rates at each rank, by one seed, on validation examples; where the best rate is the
                    smallest or the largest tried, another one beyond it
    ranks           each rank at its best rate, three other seeds; the largest rank is cut to the others
    patterns-2-8    a rank for each site, from the singular values of the largest arm, with the parameters of a uniform
                    rank: of one that is too small, and of the advised one

Started again, finished stages stay as they are, and an unfinished one goes on from its last snapshot. No stage learns
from judged examples or chooses by them.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from advice_parts.stages import FULL, TOY, Study, best, plan
from advice_parts.statements import MARGIN, Part, losses_on, parts_of, statements_of
from advice_parts.words import (
    answer,
    circumstances,
    table_of_patterns,
    table_of_rates,
    table_of_sites,
    table_of_statements,
)

from deltaw.advice.advise import advice_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, metavar="RUNS", help="a folder for the run directories")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of train.py")
    parser.add_argument("--toy", action="store_true", help="every stage at toy size")
    given = parser.parse_args()
    study = Study(given.runs, TOY if given.toy else FULL, given.overrides)
    print(plan(study), file=sys.stderr, flush=True)
    print("\n\n".join(verify(study)))


def verify(study: Study) -> Iterator[str]:
    """Train what is not trained yet; the result in paragraphs of Markdown."""
    tried = study.rates()
    chosen = {rank: best(losses) for rank, losses in tried.items()}
    run = study.ranks(chosen)
    for_advice, for_check = parts_of(run)
    advice = advice_of([Part(run.path, for_advice)], MARGIN)
    patterns = study.patterns(chosen, run, advice)
    known, others = losses_on(for_advice, run), losses_on(for_check, run)
    statements = statements_of(advice, known, others)
    yield "# Is the advice right?"
    yield answer(advice, statements)
    yield circumstances(run, known, others)
    yield f"## Statement by statement\n\n{table_of_statements(statements, known, others)}"
    yield f"## A rank for each site\n\n{table_of_patterns(losses_on(for_check, run, patterns))}"
    yield table_of_sites(patterns)
    yield f"## Learning rates\n\n{table_of_rates(tried)}"


if __name__ == "__main__":
    main()
