"""Pretraining of a base on the standard library."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from deltaw.bundled import pretrain
from deltaw.errors import UserError


def test_windows_show_every_token_once_per_epoch() -> None:
    epoch = 3 * 16
    tokens = torch.arange(epoch * pretrain.LENGTH + pretrain.LENGTH - 1)
    seen = torch.cat(list(pretrain.windows(tokens, 3, rows=16)))
    assert len(seen.unique()) == epoch * pretrain.LENGTH
    assert torch.equal(seen, seen[:, :1] + torch.arange(pretrain.LENGTH))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("muon", [True, False])
def test_pretraining_learns(muon: bool) -> None:
    tokenizer = pretrain.train_tokenizer(["def add(a, b):\n    return a + b\n"] * 3)
    recipe = pretrain.Recipe(layers=2, width=64, intermediate=64, heads=2)
    model, tokens = pretrain.build(tokenizer, recipe), torch.arange(30_000) % 7
    before = pretrain.mean_loss(model, tokens[:1000])
    pretrain.fit(model, tokens, steps=2, rows=16, muon=muon)
    assert pretrain.mean_loss(model, tokens[:1000]) < before - 0.02
    assert tokenizer.decode(tokenizer("résumé = 1")["input_ids"]) == "résumé = 1"


@pytest.mark.filterwarnings("ignore")
def test_a_base_is_made_once_and_not_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "documents", lambda: (["def add(a, b):\n    return a + b\n" * 200], ["pass\n" * 600]))
    recipe = pretrain.Recipe(layers=3, width=32, intermediate=16, heads=2, steps=2, rows=1)
    pretrain.ensure(tmp_path / "base", recipe)
    made = (tmp_path / "base/model.safetensors").stat()
    pretrain.ensure(tmp_path / "base", recipe)
    assert (tmp_path / "base/model.safetensors").stat() == made
    config = LlamaForCausalLM.from_pretrained(tmp_path / "base").config
    assert (config.num_hidden_layers, config.hidden_size) == (3, 32)
    with pytest.raises(UserError, match=re.escape("'steps': 2")):
        pretrain.ensure(
            tmp_path / "base", pretrain.Recipe(layers=3, width=32, intermediate=16, heads=2, steps=9, rows=1)
        )


@pytest.mark.parametrize(("wrong", "words"), [({"layers": 0}, "layers=0"), ({"heads": 3}, "multiple of 6")])
def test_sizes_that_make_no_model_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        pretrain.Recipe(**wrong)
