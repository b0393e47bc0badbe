"""README's table of training is what the committed results say."""

from training import with_table

from tests.support.tiny import ROOT


def test_the_table_is_that_of_the_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_table(readme) == readme and "ours / theirs" in readme
