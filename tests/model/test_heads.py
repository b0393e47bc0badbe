"""Which modules of a classifier are heads, and which checkpoints are refused."""

import pytest
from transformers import BertConfig, BertForSequenceClassification

from deltaw.errors import UserError
from deltaw.model.heads import heads_of


@pytest.fixture(scope="module")
def model() -> BertForSequenceClassification:
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    return BertForSequenceClassification(config)


def test_a_head_is_drawn_where_the_checkpoint_lacks_it(model: BertForSequenceClassification) -> None:
    assert heads_of(model, []) == {"classifier": None}
    found = heads_of(model, ["classifier.weight", "classifier.bias", "bert.pooler.dense.weight"])
    assert found.keys() == {"classifier", "bert.pooler"} and None not in found.values()


def test_a_checkpoint_without_weights_of_the_base_model_is_refused(model: BertForSequenceClassification) -> None:
    with pytest.raises(UserError, match=r"lacks weights of its base model, as bert\.encoder\.x: give"):
        heads_of(model, ["bert.encoder.x"])


def test_a_model_that_hides_its_base_model_is_refused(model: BertForSequenceClassification) -> None:
    with pytest.raises(UserError, match="does not tell its head from its base model"):
        heads_of(model.bert, [])
