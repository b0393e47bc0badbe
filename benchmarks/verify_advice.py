"""Is the advice right? It is made from a third of the judged examples, and checked on the others.

python benchmarks/verify_advice.py RUNS                                          about an hour on two cores
python benchmarks/verify_advice.py RUNS --toy --out try.json                     every stage at toy size
python benchmarks/verify_advice.py RUNS --out try.json trainer.max_steps=300     with other settings of train.py

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
from dataclasses import asdict
from pathlib import Path

from advice_parts.stages import FULL, TOY, Study, best, plan
from advice_parts.statements import MARGIN, Part, costs_of_patterns, losses_on, parts_of, statements_of
from advice_parts.words import (
    PATTERN,
    RATE,
    STATEMENT,
    answer,
    circumstances,
    counts,
    table_of_patterns,
    table_of_rates,
    table_of_statements,
)
from results_file import RESULTS, Results, measured_on

from deltaw.advice.advise import advice_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, metavar="RUNS", help="a folder for the run directories")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of train.py")
    parser.add_argument("--toy", action="store_true", help="every stage at toy size")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/advice.json")
    given = parser.parse_intermixed_args()
    if given.out is None and (given.toy or given.overrides):
        parser.error("what is not the whole study on its own settings takes --out: it is no result to keep")
    study = Study(given.runs, TOY if given.toy else FULL, given.overrides)
    print(plan(study), file=sys.stderr, flush=True)
    results = Results(given.out or RESULTS / "advice.json", **measured_on())
    verify(study, results)
    parts = (circumstances, answer, counts, table_of_statements, table_of_patterns, table_of_rates)
    print(*(part(results.found) for part in parts), results.file, sep="\n\n")


def verify(study: Study, results: Results) -> None:
    """Train what is not trained yet, and note what the advice says and what the other examples say of it."""
    tried = study.rates()
    chosen = {rank: best(losses) for rank, losses in tried.items()}
    run = study.ranks(chosen)
    for_advice, for_check = parts_of(run)
    advice = advice_of([Part(run.path, for_advice)], MARGIN)
    patterns = study.patterns(chosen, run, advice)
    known, others = losses_on(for_advice, run), losses_on(for_check, run)
    results.note(
        margin=MARGIN,
        base=run.record.base["name"],
        step=known.step,
        seeds=list(study.sizes.seeds),
        learnt=run.record.data["learnt"],
        validation=run.record.data["validation"],
        known=len(known.labels),
        others=len(others.labels),
        trained_on={"hardware": run.record.hardware, "versions": run.record.versions},
        advice=asdict(advice),
    )
    for one in statements_of(advice, known, others):
        known_cost, found_cost = one.known._asdict(), one.found._asdict()
        results.add(
            part=STATEMENT, what=one.what, said=one.said, known=known_cost, found=found_cost, verdict=one.verdict
        )
    for rank, scale, cost in costs_of_patterns(losses_on(for_check, run, patterns)):
        results.add(part=PATTERN, rank=rank, scale=scale, cost=cost._asdict())
    for name in patterns.arms:
        ranks = {site.module: lora.rank for site, lora in patterns.adapter(name).sites.items()}
        results.add(part="ranks of a pattern", arm=name, ranks=ranks)
    for rank, losses in tried.items():
        for rate, loss in losses.items():
            results.add(part=RATE, rank=rank, lr=rate, loss=loss, chosen=rate == chosen[rank])


if __name__ == "__main__":
    main()
