"""How pairs become examples of task=seq2seq."""

from deltaw.data.example import Example
from tests.support.texts import all_of, corpus, framed


def test_both_sides_keep_the_tokens_that_the_tokenizer_adds() -> None:
    rows = [{"prompt": "w1 w2 w3 w4", "completion": "w5 w6 w7"}, {"prompt": "w1", "completion": ""}]
    made = corpus(rows, framed(), "seq2seq", max_length=4, max_completion=4)
    assert all_of(made) == [Example([39, 2, 3, 40], [39, 6, 40, 0], [39, 6, 40, 0])]
    assert (made.shortened, made.dropped) == (1, 1)
    assert corpus(rows, framed(), "seq2seq", max_length=6)[0] == Example(
        [39, 2, 3, 4, 5, 40],
        [39, 6, 7, 8, 40, 0],
        [39, 6, 7, 8, 40, 0],
    )
