"""Which output layers read the states of one token alone, and that others are found out."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from deltaw.errors import UserError
from deltaw.model.output_layer import at_tokens, body_of
from tests.support.architectures import ARCHITECTURES
from tests.support.hybrids import CONFIGS, build

IDS = torch.tensor([[5, 6, 7, 8], [9, 8, 7, 6]])


@pytest.mark.parametrize("name", [name for name, found in ARCHITECTURES.items() if found.task != "classification"])
def test_every_architecture_but_t5_has_an_output_layer_that_body_of(name: str) -> None:
    assert body_of(ARCHITECTURES[name].build())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_base_with_images_and_a_hybrid_one_have_a_body(name: str) -> None:
    assert body_of(build(name))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_tokens_alone_get_the_logits_that_they_get_among_all(dtype: torch.dtype) -> None:
    model = ARCHITECTURES["gemma2"].build(dtype=dtype)
    places, exact = torch.tensor([6, 0, 3]), dtype is torch.float64
    alone = at_tokens(model, {"input_ids": IDS}, places, lambda states, layer: layer(states), body_of(model))
    among = at_tokens(model, {"input_ids": IDS}, places, lambda states, layer: layer(states), ())
    torch.testing.assert_close(alone, among, rtol=0, atol=1e-12 if exact else 1e-1)
    after = model(input_ids=IDS).logits  # nothing of it stays on the model
    torch.testing.assert_close(after.flatten(0, 1)[places], among, rtol=0, atol=0)


class Strange(LlamaForCausalLM):
    """A Llama whose logits come from more than one token's last state."""

    def forward(self, input_ids: Tensor, **_: Any) -> CausalLMOutputWithPast:
        output = self.model(input_ids=input_ids, output_hidden_states=True)
        return CausalLMOutputWithPast(logits=self.logits(input_ids, output))

    def logits(self, input_ids: Tensor, output: Any) -> Tensor:
        raise NotImplementedError


class ReadsAnotherLayer(Strange):
    def logits(self, input_ids: Tensor, output: Any) -> Tensor:
        made: Tensor = self.lm_head(output.hidden_states[-2])
        return made


class AddsTheEmbedding(Strange):
    def logits(self, input_ids: Tensor, output: Any) -> Tensor:
        made: Tensor = self.lm_head(output.last_hidden_state + self.model.embed_tokens(input_ids))
        return made


class MixesTokens(Strange):
    def logits(self, input_ids: Tensor, output: Any) -> Tensor:
        made: Tensor = self.lm_head(output.last_hidden_state.cumsum(1))
        return made


class CountsPlaces(Strange):
    def logits(self, input_ids: Tensor, output: Any) -> Tensor:
        made: Tensor = self.lm_head(output.last_hidden_state)
        return made + torch.arange(made.shape[1])[:, None] * self.lm_head.weight[:, 0]


class RunsTwice(Strange):
    def logits(self, input_ids: Tensor, output: Any) -> Tensor:
        made: Tensor = self.lm_head(output.last_hidden_state + self.model(input_ids=input_ids).last_hidden_state)
        return made


class WithPrefix(Strange):
    """Gives logits of a token that it puts before each row as well."""

    def logits(self, input_ids: Tensor, output: Any) -> Tensor:
        made: Tensor = self.lm_head(output.last_hidden_state)
        return torch.cat([made[:, :1], made], dim=1)


class Plain(Strange):
    def logits(self, input_ids: Tensor, output: Any) -> Tensor:
        made: Tensor = self.lm_head(output.last_hidden_state)
        return made


class GivesATuple(Strange):
    def logits(self, input_ids: Tensor, output: Any) -> Tensor:
        made: Tensor = self.lm_head(output[0])
        return made


def strange(kind: type[Strange]) -> Strange:
    llama = ARCHITECTURES["llama"].build()
    model = kind(llama.config)  # type: ignore[arg-type]
    model.load_state_dict(llama.state_dict())
    return model.eval()


def test_a_model_of_ones_own_may_have_a_body() -> None:
    assert body_of(strange(Plain))


@pytest.mark.parametrize("kind", [ReadsAnotherLayer, AddsTheEmbedding, MixesTokens, CountsPlaces, RunsTwice])
def test_there_is_no_body_behind_which_an_output_layer_reads_more_than_one_state(kind: type[Strange]) -> None:
    assert not body_of(strange(kind))


def test_a_tuple_of_tensors_has_no_states() -> None:
    model = strange(GivesATuple)
    body = model.model.forward
    model.model.forward = lambda **given: (body(**given).last_hidden_state,)
    assert not body_of(model)


def test_logits_of_other_tokens_than_those_of_a_row_are_refused() -> None:
    with pytest.raises(UserError, match="gives logits for 4 places of a row of 3 tokens"):
        body_of(strange(WithPrefix))
