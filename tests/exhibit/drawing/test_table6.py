"""Table 6: arms of one alpha are seeds of one another, and others are not."""

from pathlib import Path

from deltaw.analysis.losses import losses_of
from deltaw.exhibit.drawing import table6
from deltaw.run.directory import RunDirectory
from tests.support.folders import write_run


def test_arms_of_another_alpha_have_a_row_of_their_own(tmp_path: Path) -> None:
    run = RunDirectory(write_run(tmp_path / "run", "r4-s0", "r4-s0-a32", "r4-s0-a32-shuffled", "r4-s1-a32"))
    losses = losses_of([run.adapter("r4-s0")])
    rows = [(row.control, row.variant, row.seeds) for row in table6.summarise(losses, ["end"]).itertuples()]
    assert rows == [("", "", 1), ("", "a32", 2), ("shuffled", "a32", 1)]
    assert "a32" in [text.get_text() for text in table6.draw(losses).axes[0].texts]
