"""The advice in words: the answer first, its evidence in every statement, and no more than was measured."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaw import report
from deltaw.advice.answer import Advice, Cut, Dropped, Evidence, Learned, Rank, Ship, Train
from deltaw.report.advice import NOT_KNOWN, sentences
from deltaw.report.advice_tables import section
from deltaw.report.words import markdown
from tests.support.summaries import cells, excess_table, raised, summarise

SUMMARY = summarise(cells())
EVIDENCE = Evidence(["x"], 150, 512, 512, 6105, 128, "token", 0.01)
SEEN = "step 150, seed 0, 512 judged examples"
CUTS = [
    Cut(32, 0.5, 0.0005, 0.0003, 0.9998, 0.9995, 1.0001, True, None),
    Cut(16, 0.25, 0.006, 0.001, 0.997, 0.9962, 0.9978, True, None),
    Cut(8, 0.125, 0.018, 0.003, 0.991, 0.9885, 0.9935, False, 2300),
    Cut(4, 0.0625, 0.06, 0.008, 0.97, 0.963, 0.977, False, None),
]
LEARNED = [Learned(f"r{rank}-s0", None, rank, 0, 0.01, 1.95, 0.05, None) for rank in (8, 64)]
SHIP = Ship("r64-s0", 64, 0.01, [0], CUTS, CUTS[1])
RANKS = [
    Rank(1, 0.01, [0.01], [0, 1, 2], 1.45, 0.15, 0.12, 0.18, False),
    Rank(8, 0.01, [0.003, 0.01, 0.03], [0, 1, 2], 1.168, 0.004, -0.002, 0.008, True),
    Rank(64, 0.003, [0.003, 0.01], [0, 1, 2], 1.16, 0.0, None, None, True),
]
TRAIN = Train(64, 8, RANKS, ["alpha/r with alpha 16"], None, None, None, None, None, None)
DROPPED = [
    Dropped("q of layer 1", "site", 0.002, -0.001, 0.005, 0.2, None, None),
    Dropped("v of layer 1", "site", 0.042, 0.021, 0.063, 0.001, None, None),
    Dropped("q", "projection", 0.4, 0.35, 0.45, 1e-9, 0.18, False),
    Dropped("layer 1", "third", 0.044, 0.02, 0.07, 1e-5, 0.03, True),
]


def advice(**parts: Any) -> Advice:
    return Advice(**{"missing": None, "evidence": EVIDENCE, "learned": LEARNED, "ship": SHIP} | parts)


def words(**parts: Any) -> list[str]:
    return sentences(advice(**parts), SUMMARY)


def no_cut(*cuts: Cut) -> Ship:
    return replace(SHIP, cuts=list(cuts), ship=None)


def test_the_first_sentence_ships_a_cut_and_the_next_says_what_it_rests_on_and_how_far_it_reaches() -> None:
    first, second, third, fourth, *_ = words()
    assert first == (
        "Ship r64-s0 cut to 16: it keeps 99.7 % of the gain (at least 99.6 %) in a quarter of the parameters."
    )
    assert second.startswith("16 directions per site of this arm carry its loss within the margin of 1 % of the gain")
    assert f"({SEEN}, one-sided at 5 %" in second
    assert third == (
        "By the same evidence, whether a cut to 8 stays within the margin is open: it keeps 99.1 % (at least 98.8 %), "
        "and about 2,300 judged examples would probably decide."
    )
    assert fourth.startswith("A statement about the recipe takes three seeds")


@pytest.mark.parametrize(
    ("parts", "first"),
    [
        ({"missing": "x has no judged losses: start it again."}, "x has no judged losses: start it again."),
        ({"missing": None, "evidence": None}, NOT_KNOWN),
        (
            {"learned": [replace(one, doubt="has no clear gain") for one in LEARNED], "ship": None},
            "Nothing was learned, so no rank is advised: r8-s0 has no clear gain; r64-s0 has no clear gain (step 150, "
            "512 judged examples, one-sided at 5 %).",
        ),
        (
            {"learned": [replace(LEARNED[0], gain=None, se=None, doubt="diverged"), LEARNED[1]]},
            "Not every arm can be said to have learned: r8-s0 diverged (step 150, 512 judged examples, "
            "one-sided at 5 %).",
        ),
        (
            {"ship": no_cut(replace(CUTS[0], passes=False, needed=900)), "remarks": ["512 examples are too few"]},
            "512 examples are too few.",
        ),
        ({"ship": None, "remarks": ["No cut of r=64 was judged"]}, "No cut of r=64 was judged."),
        (
            {"ship": no_cut(replace(CUTS[3], passes=False)), "remarks": ["Only one scale was tried"]},
            f"Ship r64-s0 as it is: no cut is shown to stay within the margin of 1 % of the gain ({SEEN}, one-sided at "
            "5 %).",
        ),
    ],
    ids=["missing", "no run", "noise", "one diverged", "too few examples", "no cuts", "no cut passes"],
)
def test_what_keeps_from_an_answer_comes_first(parts: dict[str, Any], first: str) -> None:
    assert words(**parts)[0] == first


def test_a_better_arm_of_a_smaller_rank_is_shipped_whole_and_no_cut_is() -> None:
    undecided = replace(no_cut(replace(CUTS[0], passes=False, needed=900)), better="r8-s0")
    for ship in (replace(SHIP, better="r8-s0"), undecided):
        first, *others = words(ship=ship, remarks=["Only one scale was tried"])
        assert first == (
            "Ship r8-s0 as it is: its rank is smaller, and r64-s0 is shown to have a higher loss, by more than 1 % of "
            "the gain (step 150, 512 judged examples, one-sided at 5 %)."
        )
        assert not any("cut to" in sentence for sentence in others)


def test_that_no_smaller_cut_was_judged_is_said() -> None:
    assert words(ship=replace(SHIP, cuts=CUTS[:2]))[2].startswith("No smaller cut was judged: start the same")
    one = replace(CUTS[0], cut=1)
    assert not any("smaller cut" in sentence for sentence in words(ship=replace(SHIP, cuts=[one], ship=one)))


def test_one_direction_carries() -> None:
    one = replace(CUTS[0], cut=1)
    assert (
        "1 direction per site of this arm carries its loss within" in words(ship=replace(SHIP, cuts=[one], ship=one))[1]
    )


def test_a_control_that_learned_nothing_is_no_doubt_about_the_arms() -> None:
    control = Learned("r64-s0-random", "random", 64, 0, 0.01, -0.1, 0.05, "has no clear gain")
    assert words(learned=[*LEARNED, control])[0].startswith("Ship r64-s0 cut to 16")


@pytest.mark.parametrize(
    ("cut", "reason"),
    [
        (
            CUTS[3],
            "a cut to 4 is shown to lose more than the margin: it keeps 97.0 % (at least 96.3 %).",
        ),
        (
            replace(CUTS[2], needed=None),
            "whether a cut to 8 stays within the margin is open: it keeps 99.1 % (at least 98.8 %).",
        ),
    ],
)
def test_why_no_smaller_cut_is_shipped(cut: Cut, reason: str) -> None:
    assert words(ship=replace(SHIP, cuts=[*CUTS[:2], cut]))[2] == f"By the same evidence, {reason}"


def test_three_seeds_tell_of_the_recipe() -> None:
    recipe = replace(SHIP, seeds=[0, 1, 2])
    (sentence,) = [one for one in words(recipe=recipe) if "of this recipe" in one]
    assert sentence == (
        "16 directions per site of this recipe, rank 64 at learning rate 0.01, carry its loss within the margin: cut "
        "to 16, it keeps 99.7 % (at least 99.6 %) of the gain (step 150, seeds 0, 1 and 2, 512 judged examples, "
        "one-sided at 5 % over seeds and examples)."
    )
    (none,) = [one for one in words(recipe=replace(recipe, ship=None)) if "Of this recipe" in one]
    assert "no cut is shown to stay within the margin" in none and "seeds 0, 1 and 2" in none


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        (
            TRAIN,
            "Train rank 8 next time: rank 8 suffices at learning rate 0.01, the best of 3, and costs at most 0.80 % of "
            "the gain against rank 64 (step 150, 512 judged examples, seeds 0, 1 and 2 of rank 64, one-sided at 5 % "
            "over seeds and examples).",
        ),
        (
            replace(TRAIN, rank=64, ranks=[RANKS[0], RANKS[2]]),
            "Train rank 64 next time: rank 1 costs at least 12 % of the gain (step",
        ),
        (
            replace(TRAIN, rank=64, ranks=RANKS[2:]),
            "Train rank 64 next time: it validates best, which is a choice and no test, and no smaller one was trained "
            "(step",
        ),
        (replace(TRAIN, rank=None), "Undecided at 1 %: which rank to train next time (step 150, 512 judged"),
        (replace(TRAIN, missing="Rank 8 has 1 seed of 3"), "Rank 8 has 1 seed of 3."),
    ],
)
def test_the_rank_to_train_is_an_answer_of_its_own(train: Train, sentence: str) -> None:
    assert any(one.startswith(sentence) for one in words(train=train))


def test_undecided_gives_the_most_of_each_rank_and_what_would_settle_it() -> None:
    command = "deltaw train -m 'arms.seeds=[0],[1],[2],[3]' data.judged=3456"
    undecided = replace(
        TRAIN, rank=None, seeds_needed=4, judged_needed=3456, command=command, arms_of_a_seed=6, times=4.25
    )
    found = "\n".join(words(train=undecided))
    assert (
        "against rank 64 and as a share of the gain, at 95 %, rank 1 costs at most 18 %, rank 8 at most 0.80 %."
        in found
    )
    assert "By the same evidence, shown to cost more than 1 % of the gain: rank 1 (at least 12 %)." in found
    condition = "if rank 8 costs no more than rank 64"
    assert f"About 4 seeds of each rank and 3,456 judged examples would probably decide, {condition}." in found
    assert "with 6 arms side by side in a run for each seed" in found
    assert f"in about 4.2 times the time of the runs so far: `{command}`.\nThen `deltaw analyze run=" in found
    hopeless = words(train=replace(undecided, seeds_needed=3909, command=None, arms_of_a_seed=None, times=None))
    assert f"About 4,000 seeds of each rank and 3,500 judged examples would probably decide, {condition}." in hopeless
    assert not any("This sweep" in sentence or "deltaw analyze" in sentence for sentence in hopeless)


def test_judged_examples_that_suffice_are_not_asked_for() -> None:
    undecided = replace(TRAIN, rank=None, seeds_needed=22, judged_needed=EVIDENCE.judged)
    (sentence,) = [one for one in words(train=undecided) if "would probably decide, if" in one]
    assert sentence.startswith("About 22 seeds of each rank would probably decide, if rank 8")


def test_places_have_limits_and_a_warning() -> None:
    found = words(where=DROPPED)
    (sites,) = [one for one in found if one.startswith("Of the sites")]
    assert "of its gain without ΔW at v of layer 1 (4.2 %; 2.1 % to 6.3 %), q of layer 1" in sites and SEEN in sites
    assert "1 of 2 are shown to carry anything" in sites
    (apart,) = [one for one in found if "add up" in one]
    assert apart.endswith("one by one, q 40 % against 18 %.")
    (together,) = [one for one in words(where=[DROPPED[3]]) if "dropped together" in one]
    assert together.startswith("Sites dropped together are not shown to cost more or less")
    assert any("whether a rank for each site beats one rank for all was not tried here" in one for one in found)


def test_phi_explains_and_never_decides() -> None:
    assert any("it cannot tell whether" in one for one in words())
    learned = replace(SUMMARY.learning[0], gain=1.0, se=0.1, unit="token", doubt=None)
    for seeds, by, expected in [
        (1, 0.3, "One seed is no test of whether the leading directions of low and high agree"),
        (3, 0.3, "high agree beyond the control pair in the bases A, update, output (3 seeds; 6 tests"),
        (3, 0.0, "it is not shown that the leading directions"),
    ]:
        summary = replace(summarise(cells(), excess=raised(excess_table(seeds), by)), learning=[learned] * 2)
        (sentence,) = [one for one in sentences(advice(), summary) if one.startswith("φ")]
        assert sentence.startswith("φ explains, and does not decide") and expected in sentence
    doubtful = replace(summary, learning=[learned, replace(learned, doubt="diverged")])
    assert any("not every arm is known to have learned" in one for one in sentences(advice(), doubtful))


def test_the_summary_begins_with_the_answer_and_has_a_table_for_each_part(tmp_path: Path) -> None:
    found = advice(recipe=replace(SHIP, seeds=[0, 1, 2]), train=TRAIN, where=DROPPED, remarks=["Only one scale"])
    text = markdown(SUMMARY, found)
    title, answer = text.split("\n\n")[1:3]
    assert title == "## Which rank" and answer == f"**{sentences(found, SUMMARY)[0]}**"
    part = text.partition("## Which rank")[2].partition("\n## ")[0]
    for row in [
        "| 16 | 25 % | 0.006 ± 0.001 | 99.7 % | 99.6 % | yes |  |",
        "| 8 | 12 % | 0.018 ± 0.003 | 99.1 % | 98.8 % | no | 2,300 |",
        "| 8 | 0.01 | 0.003, 0.01, 0.03 | 3 | 1.168 | 0.40 % | −0.20 % | 0.80 % | yes |",
        "| v of layer 1 | 4.2 % | 2.1 % | 6.3 % | 0.001 |  |",
        "| r64-s0 |  | 1.95 ± 0.05 | yes |",
    ]:
        assert row in part
    report.write(SUMMARY, found, tmp_path)
    alone, within = (json.loads((tmp_path / name).read_text()) for name in ("advice.json", "summary.json"))
    assert within["advice"] == alone and alone["sentences"] == sentences(found, SUMMARY)
    assert alone["ship"]["ship"]["cut"] == 16


def test_without_a_run_there_is_one_line_and_no_advice(tmp_path: Path) -> None:
    report.write(SUMMARY, None, tmp_path)
    text = (tmp_path / "summary.md").read_text()
    assert text.split("\n\n")[1] == NOT_KNOWN and "## Which rank" not in text
    assert not (tmp_path / "advice.json").exists()


numbers = st.floats(-3, 3).map(lambda number: round(number, 6))
counts = st.integers(1, 10**6)
optional = st.none() | counts
cuts = st.builds(
    lambda cut, share, se, kept, below, above, passes, needed: Cut(
        cut, share, 1 - kept, se, kept, kept - below, kept + above, passes, needed
    ),
    *(st.integers(1, 64), st.floats(0.001, 1), st.floats(0, 1), numbers, st.floats(0, 1), st.floats(0, 1)),
    *(st.booleans(), optional),
)


@st.composite
def advices(draw: st.DrawFn) -> Advice:
    def ship(seeds: list[int]) -> Ship:
        found = draw(st.lists(cuts, min_size=1, max_size=4))
        return Ship("r64-s0", 64, 0.01, seeds, found, draw(st.none() | st.sampled_from(found)))

    def limits() -> tuple[float | None, float | None]:
        return draw(st.sampled_from([(None, None), (-0.1, 0.2), (0.03, 0.5), (0.0, 0.0)]))

    ranks = [
        Rank(rank, 0.01, [0.01], [0, 1, 2], abs(draw(numbers)), draw(numbers), *limits(), draw(st.booleans()))
        for rank in sorted(draw(st.sets(st.integers(1, 64), min_size=1, max_size=4)))
    ]
    of_ranks = st.sampled_from([one.rank for one in ranks])
    train = Train(
        *(draw(of_ranks), draw(st.none() | of_ranks), ranks, [], draw(optional), draw(optional)),
        *draw(st.sampled_from([(None, None, None), ("deltaw train -m", 6, 3.2)])),
        draw(st.none() | st.just("Too few seeds")),
    )
    dropped = st.builds(
        Dropped,
        *(st.just("q"), st.sampled_from(["site", "projection", "third"]), numbers, numbers, numbers, st.floats(0, 1)),
        *(st.none() | numbers, st.none() | st.booleans()),
    )
    doubts = st.none() | st.just("diverged")
    learned = [replace(one, doubt=draw(doubts), gain=draw(st.none() | numbers)) for one in LEARNED]
    return advice(
        learned=learned,
        ship=draw(st.none() | st.just(ship([0]))),
        recipe=draw(st.none() | st.just(ship([0, 1, 2]))),
        train=draw(st.none() | st.just(train)),
        where=draw(st.lists(dropped, max_size=4)),
        remarks=draw(st.lists(st.just("A remark"), max_size=2)),
        evidence=replace(EVIDENCE, judged=draw(counts), clusters=draw(counts)),
    )


@pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")  # beartype draws in strategies
@given(advices())
@settings(max_examples=150, deadline=None)
def test_no_sentence_has_an_undefined_number_or_says_what_rank_is_needed(found: Advice) -> None:
    spoken = sentences(found, SUMMARY)
    text = section(found, spoken)
    assert not re.search(r"\b(nan|None|inf|NaN|needs? rank)\b|(?<!e)-\d", text)
    assert all(re.fullmatch(r"[A-Z0-9φ].*[.]", one) for one in spoken)
    shipped = found.ship and found.ship.ship
    assert not shipped or f"cut to {shipped.cut}" in " ".join(spoken)
