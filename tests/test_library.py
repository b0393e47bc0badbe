import pytest
import torch

from deltaw.base import pretrain
from deltaw.data import library


def test_no_module_that_the_arms_learn_from_is_in_the_pretraining_text() -> None:
    learnt = {library._module(path) for path in library.task_files()}
    assert learnt == library.TASK_MODULES  # this interpreter has every one
    assert not learnt & {library._module(path) for path in library.pretraining_files()}
    assert not set(library.task_files()) & set(library.pretraining_files())


def test_windows_show_every_token_once_an_epoch() -> None:
    epoch = 3 * pretrain.ROWS
    tokens = torch.arange(epoch * pretrain.LENGTH + pretrain.LENGTH - 1)
    seen = torch.cat(list(pretrain.windows(tokens, 3)))
    assert len(seen.unique()) == epoch * pretrain.LENGTH
    assert torch.equal(seen, seen[:, :1] + torch.arange(pretrain.LENGTH))


@pytest.mark.filterwarnings("ignore")
def test_pretraining_learns(capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = pretrain.train_tokenizer(["def add(a, b):\n    return a + b\n"] * 3)
    model, tokens = pretrain.build(tokenizer), torch.arange(30_000) % 7
    before = pretrain.mean_loss(model, tokens[:1000])
    pretrain.fit(model, tokens, 2)
    assert pretrain.mean_loss(model, tokens[:1000]) < before - 0.1
    assert tokenizer.decode(tokenizer("résumé = 1")["input_ids"]) == "résumé = 1"
