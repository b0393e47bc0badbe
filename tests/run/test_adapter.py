"""One adapter folder: what is read, beside what PEFT itself makes of it, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel

from deltaw import load_adapter
from deltaw.errors import UserError
from deltaw.run.adapter import Adapter, Site
from deltaw.run.peft_files import SPLIT, WEIGHTS
from tests.support.folders import WIDTH, write_adapter

Q1 = "base_model.model.layers.0.q_proj"


def rewrite_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def set_config(**changes: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))

    return change


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 8)


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def two_layers() -> nn.Module:
    return nn.ModuleDict({"layers": nn.ModuleList([Attention(), Attention()])})


def adapt(base: nn.Module, *targets: str, **settings: Any) -> PeftModel:
    """LoRA of rank 4 on `targets`; with random factors, as after some training, unless `settings` say otherwise."""
    torch.manual_seed(0)
    defaults: dict[str, Any] = {"r": 4, "lora_alpha": 16, "init_lora_weights": False}
    model: Any = base
    return get_peft_model(model, LoraConfig(target_modules=list(targets), **defaults | settings))


def saved(model: PeftModel, folder: Path) -> Path:
    model.save_pretrained(str(folder))
    return folder


def update_in_peft(model: PeftModel, module: str) -> torch.Tensor:
    """The update that PEFT adds to the weight of `module`."""
    layer: Any = model.get_submodule(f"base_model.model.{module}")
    return layer.get_delta_weight("default")


def update(adapter: Adapter, site: Site) -> torch.Tensor:
    return adapter.sites[site].scale * adapter.B(site) @ adapter.A(site)


# Names.


def test_layers_count_from_1_and_projections_have_letters(tmp_path: Path) -> None:
    adapter = load_adapter(write_adapter(tmp_path / "a", rank=4, layers=2))
    assert [(site.layer, site.projection) for site in adapter.sites] == [(1, "q"), (1, "v"), (2, "q"), (2, "v")]
    assert [site.module for site in adapter.sites][:2] == ["layers.0.q_proj", "layers.0.v_proj"]
    assert adapter.base == "tiny" and adapter.remarks == ()


def test_sites_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    adapter = load_adapter(write_adapter(tmp_path / "a", rank=1, layers=11))
    assert [site.layer for site in adapter.sites][::2] == list(range(1, 12))


def test_modules_that_share_layer_and_letter_are_named_by_their_paths_in_every_layer(tmp_path: Path) -> None:
    def move_q_into_experts(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if "0.q_proj" in name]:
            for expert in "01":
                tensors[name.replace("q_proj", f"experts.{expert}.q_proj")] = tensors[name].clone()
            del tensors[name]

    rewrite_tensors(write_adapter(tmp_path / "a", rank=4, layers=2), move_q_into_experts)
    assert [(site.layer, site.projection) for site in load_adapter(tmp_path / "a").sites] == [
        (1, "experts.0.q_proj"),
        (1, "experts.1.q_proj"),
        (1, "v"),
        (2, "q_proj"),
        (2, "v"),
    ]


def test_modules_outside_the_layers_are_in_layer_0(tmp_path: Path) -> None:
    def add_head(tensors: dict[str, torch.Tensor]) -> None:
        for factor in "AB":
            tensors[f"base_model.model.score.lora_{factor}.weight"] = tensors[f"{Q1}.lora_{factor}.weight"].clone()

    rewrite_tensors(write_adapter(tmp_path / "a", rank=4, layers=1), add_head)
    assert next(iter(load_adapter(tmp_path / "a").sites)) == Site(0, "score", "score")


def rename(prefix: str, name: str) -> Callable[[dict[str, torch.Tensor]], object]:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        for old in list(tensors):
            renamed = prefix + old.removeprefix("base_model.model.").removesuffix("weight") + f"{name}weight"
            tensors[renamed] = tensors.pop(old)

    return change


@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
@pytest.mark.parametrize("name", ["", "default.", "my-adapter."])
def test_names_with_or_without_wrapper_and_adapter_are_the_same(tmp_path: Path, prefix: str, name: str) -> None:
    plain = load_adapter(write_adapter(tmp_path / "plain", rank=2))
    rewrite_tensors(write_adapter(tmp_path / "a", rank=2), rename(prefix, name))
    adapter = load_adapter(tmp_path / "a")
    assert [(site, site.module) for site in adapter.sites] == [(site, site.module) for site in plain.sites]
    for site in plain.sites:
        assert_close(adapter.A(site), plain.A(site), rtol=0, atol=0)
        assert_close(adapter.B(site), plain.B(site), rtol=0, atol=0)


SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "vocab_size": 11, "pad_token_id": 0}
T5 = {"d_kv": 8, "d_ff": 8, "num_layers": 1, "num_heads": 4, "d_model": 32}
BART = {"encoder_layers": 2, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8, "d_model": 32}
BART |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "num_hidden_layers": 2}
WITH_EOS = {"bos_token_id": 1, "eos_token_id": 1}


def tiny(kind: str, model: Any = AutoModel, **config: Any) -> PreTrainedModel:
    """An untrained transformer of one layer and width 32."""
    torch.manual_seed(0)
    tiny_model: PreTrainedModel = model.from_config(AutoConfig.for_model(kind, **SMALL | WITH_EOS | config))
    return tiny_model.eval()


@pytest.mark.parametrize(
    ("kind", "config", "names"),
    [
        ("llama", {"intermediate_size": 8}, "down_proj gate_proj k o q up_proj v"),
        ("phi", {"intermediate_size": 8}, "fc1 fc2 k o q v"),
        ("opt", {"ffn_dim": 8, "word_embed_proj_dim": 32}, "fc1 fc2 k o q v"),
        ("distilbert", {"n_layers": 1, "hidden_dim": 8}, "k lin1 lin2 o q v"),
        ("gpt2", {"n_layer": 1}, "c_fc c_proj k o q v"),
        ("bert", {}, "intermediate.dense k o output.dense q v"),
    ],
)
def test_every_linear_layer_is_a_site_and_attention_has_letters(
    tmp_path: Path, kind: str, config: dict[str, Any], names: str
) -> None:
    model = get_peft_model(
        tiny(kind, **config), LoraConfig(target_modules="all-linear", exclude_modules=["pooler.dense"])
    )
    assert [(site.layer, site.projection) for site in load_adapter(saved(model, tmp_path)).sites] == [
        (1, name) for name in names.split()
    ]


@pytest.mark.parametrize(
    ("kind", "config", "target", "modules"),
    [
        (
            *("t5", T5 | {"num_decoder_layers": 2}, "q"),
            {
                "decoder.block.0.layer.0.SelfAttention.q": (1, "decoder.layer.0.SelfAttention.q"),
                "decoder.block.0.layer.1.EncDecAttention.q": (1, "decoder.layer.1.EncDecAttention.q"),
                "encoder.block.0.layer.0.SelfAttention.q": (1, "encoder.q"),
                "decoder.block.1.layer.0.SelfAttention.q": (2, "decoder.layer.0.SelfAttention.q"),
                "decoder.block.1.layer.1.EncDecAttention.q": (2, "decoder.layer.1.EncDecAttention.q"),
            },
        ),
        (
            *("bart", BART, "q_proj"),
            {
                "decoder.layers.0.encoder_attn.q_proj": (1, "decoder.encoder_attn.q_proj"),
                "decoder.layers.0.self_attn.q_proj": (1, "decoder.self_attn.q_proj"),
                "encoder.layers.0.self_attn.q_proj": (1, "encoder.q"),
                "encoder.layers.1.self_attn.q_proj": (2, "encoder.q"),
            },
        ),
    ],
)
def test_sites_of_encoder_and_decoder_have_different_names(
    tmp_path: Path, kind: str, config: dict[str, Any], target: str, modules: dict[str, tuple[int, str]]
) -> None:
    adapter = load_adapter(saved(adapt(tiny(kind, **config), target), tmp_path))
    assert {site.module: (site.layer, site.projection) for site in adapter.sites} == modules


# Factors.


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"v_proj": 2}},
        {"alpha_pattern": {r"layers\.1\.q_proj": 5}},
        {"alpha_pattern": {r"layers\.1": 5, "proj": 6, "v_.*": 7}},
        {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 7}, "use_rslora": True},
        {"use_dora": True},
        {"bias": "all", "lora_bias": True},
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_scale_times_the_factors_is_what_peft_adds(
    tmp_path: Path, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    model = adapt(two_layers(), "q_proj", "v_proj", **settings).to(dtype)
    adapter = load_adapter(saved(model, tmp_path))
    assert len(adapter.sites) == 4
    for site, lora in adapter.sites.items():
        A, B = adapter.A(site), adapter.B(site)
        assert (A.dtype, A.shape, B.shape) == (dtype, (lora.rank, lora.d_in), (lora.d_out, lora.rank))
        rounding = 8 * torch.finfo(dtype).eps
        assert_close(update(adapter, site), update_in_peft(model, site.module), rtol=rounding, atol=rounding)


def test_a_state_with_the_adapters_name_in_its_keys_is_read(tmp_path: Path) -> None:
    model = adapt(two_layers(), "q_proj")
    folder = saved(model, tmp_path)
    save_file({name: value for name, value in model.state_dict().items() if "lora" in name}, folder / WEIGHTS)
    adapter = load_adapter(folder)
    for site in adapter.sites:
        assert_close(update(adapter, site), update_in_peft(model, site.module))


def test_factors_are_read_one_at_a_time(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a", rank=4)
    rewrite_tensors(folder, lambda tensors: tensors.update({f"{Q1}.lora_B.weight": torch.full((WIDTH, 4), torch.nan)}))
    adapter = load_adapter(folder)
    first, *others = adapter.sites
    assert all(adapter.A(site).isfinite().all() for site in adapter.sites)
    assert all(adapter.B(site).isfinite().all() for site in others)
    with pytest.raises(UserError, match=f"{Q1}.lora_B.weight holds NaN"):
        adapter.B(first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.unlink(), "cannot be read"),
        (lambda file: file.write_bytes(file.read_bytes()[:-10]), "ends within base_model.model.layers.3.v_proj.lora_B"),
    ],
)
def test_a_file_that_changes_after_it_was_opened_is_refused(
    tmp_path: Path, change: Callable[[Path], object], message: str
) -> None:
    adapter = load_adapter(write_adapter(tmp_path / "a", rank=4))
    change(tmp_path / "a" / WEIGHTS)
    with pytest.raises(UserError, match=message):
        adapter.B(list(adapter.sites)[-1])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_single_value_that_is_not_finite_is_found(tmp_path: Path, value: float, dtype: torch.dtype) -> None:
    A = torch.randn(4, WIDTH).to(dtype)
    A[2, 3] = value
    adapter = load_adapter(write_with(tmp_path / "a", A))
    with pytest.raises(UserError, match=f"{Q1}.lora_A.weight holds NaN or infinity"):
        adapter.A(next(iter(adapter.sites)))


def test_finite_values_whose_sum_overflows_are_read(tmp_path: Path) -> None:
    A = torch.full((4, WIDTH), 60000.0).half()
    adapter = load_adapter(write_with(tmp_path / "a", A))
    assert_close(adapter.A(next(iter(adapter.sites))), A, rtol=0, atol=0)


def write_with(folder: Path, A: torch.Tensor) -> Path:
    rewrite_tensors(write_adapter(folder, rank=4), lambda tensors: tensors.update({f"{Q1}.lora_A.weight": A}))
    return folder


# Layers that fuse q, k and v.


@pytest.mark.parametrize(
    ("kind", "target", "config"),
    [
        ("gpt2", "c_attn", {}),
        ("mpt", "Wqkv", {"d_model": 32, "n_heads": 4, "n_layers": 1}),
        ("phi3", "qkv_proj", {"num_key_value_heads": 4, "intermediate_size": 8}),
        ("phi3", "qkv_proj", {"num_key_value_heads": 2, "intermediate_size": 8}),
        ("gpt_neox", "query_key_value", {"intermediate_size": 8}),
        ("gpt_neox_japanese", "query_key_value", {}),
        ("bloom", "query_key_value", {"n_layer": 1}),
        ("persimmon", "query_key_value", {"intermediate_size": 8}),
        ("falcon", "query_key_value", {"multi_query": True}),
        ("falcon", "query_key_value", {"multi_query": False}),
        ("falcon", "query_key_value", {"new_decoder_architecture": True, "num_kv_heads": 2}),
        ("codegen", "qkv_proj", {"rotary_dim": 4, "n_layer": 1}),
        ("gpt_bigcode", "c_attn", {"multi_query": True, "n_layer": 1}),
        ("gpt_bigcode", "c_attn", {"multi_query": False, "n_layer": 1}),
    ],
)
def test_the_rows_of_a_fused_layer_are_those_that_the_model_uses_for_q_k_and_v(
    tmp_path: Path, kind: str, target: str, config: dict[str, Any]
) -> None:
    base = tiny(kind, AutoModelForCausalLM, **config)
    base.config.save_pretrained(tmp_path / "base")
    model = adapt(base, target)
    folder = saved(model, tmp_path / "a")
    set_config(base_model_name_or_path=str(tmp_path / "base"))(folder)
    adapter = load_adapter(folder)
    assert [(site.layer, site.projection) for site in adapter.sites] == [(1, "k"), (1, "q"), (1, "v")]

    [module] = {site.module for site in adapter.sites}
    whole = update_in_peft(model, module)
    whole = whole.T if adapter.transposed else whole
    for site, lora in adapter.sites.items():
        assert_close(lora.rows_of(whole), update(adapter, site))
    rows = {site.projection: lora.rows or () for site, lora in adapter.sites.items()}
    assert sorted(row for parts in rows.values() for part in parts for row in part) == list(range(len(whole)))

    layer = model.get_submodule(f"base_model.model.{module}")
    reached = {letter: _reached(model, layer, rows[letter]) for letter in "qkv"}
    assert reached == {"q": [False, False, False], "k": [False, True, True], "v": [True, True, True]}


def _reached(model: nn.Module, layer: nn.Module, rows: tuple[range, ...]) -> list[bool]:
    """Which of three positions of a causal model react when these outputs of `layer` change at the first position.

    There attention has one key, so that q and k do not matter; later positions see k and v of it, and not q.
    """

    def disturb(_layer: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        disturbed = output.clone()
        for part in rows:
            disturbed[:, 0, part.start : part.stop] += torch.linspace(1, 2, len(part))
        return disturbed

    tokens = torch.tensor([[2, 3, 4]])
    before = model(tokens, use_cache=False).logits
    with layer.register_forward_hook(disturb):
        after = model(tokens, use_cache=False).logits
    return [not torch.allclose(one, other, atol=1e-6) for one, other in zip(before[0], after[0], strict=True)]


@pytest.mark.parametrize(
    ("kind", "target", "config", "split"),
    [
        ("gpt2", "c_attn", {"n_layer": 1}, True),
        ("mpt", "Wqkv", {"d_model": 32, "n_heads": 4, "n_layers": 1}, True),
        ("phi3", "qkv_proj", {"num_key_value_heads": 4, "intermediate_size": 8}, True),
        ("phi3", "qkv_proj", {"num_key_value_heads": 2, "intermediate_size": 8}, True),
        ("gpt_neox", "query_key_value", {"intermediate_size": 8}, False),
        ("codegen", "qkv_proj", {"rotary_dim": 4, "n_layer": 1}, True),
        ("gpt_bigcode", "c_attn", {"multi_query": True, "n_layer": 1}, True),
        ("gpt_bigcode", "c_attn", {"multi_query": False, "n_layer": 1}, False),
    ],
)
def test_without_the_base_a_fused_layer_is_split_only_where_names_and_widths_tell_how(
    tmp_path: Path, kind: str, target: str, config: dict[str, Any], split: bool
) -> None:
    model = adapt(tiny(kind, AutoModelForCausalLM, **config), target, init_lora_weights=True)
    adapter = load_adapter(saved(model, tmp_path))
    remark = "they share A" if split else "nothing tells which rows are whose"
    assert {site.projection for site in adapter.sites} == (set("qkv") if split else {target})
    assert len(adapter.remarks) == 1 and remark in adapter.remarks[0] and target in adapter.remarks[0]


# What is not LoRA of linear layers.


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(2, 8, 6)), nn.Parameter(torch.randn(2, 6, 8))


def test_tensors_that_are_no_lora_of_linear_layers_are_left_out_and_named_once(tmp_path: Path) -> None:
    base = two_layers()
    base.conv, base.words, base.experts = nn.Conv2d(3, 5, 3), nn.Embedding(7, 8), Experts()
    base.score = nn.Linear(WIDTH, 2)
    model = adapt(
        *(base, "q_proj", "conv", "words"),
        target_parameters=["experts.up", "experts.down"],
        modules_to_save=["score"],
        init_lora_weights=True,
    )
    adapter = load_adapter(saved(model, tmp_path))
    assert [(site.layer, site.projection) for site in adapter.sites] == [(1, "q"), (2, "q")]
    [remark] = adapter.remarks
    names = "conv, experts, experts.base_layer, score.bias and 3 more"  # score.weight, and two factors of words
    assert remark.endswith(f": {names}")


def test_a_dora_is_compared_by_its_direction(tmp_path: Path) -> None:
    model = adapt(two_layers(), "q_proj", use_dora=True, init_lora_weights=True)
    adapter = load_adapter(saved(model, tmp_path))
    assert adapter.direction_only
    assert "magnitude" in adapter.remarks[0] and "layers.*.q_proj.lora_magnitude_vector" in adapter.remarks[1]


def test_conv1d_is_transposed(tmp_path: Path) -> None:
    assert load_adapter(saved(adapt(tiny("gpt2", n_layer=1), "c_attn"), tmp_path)).transposed
    assert not load_adapter(write_adapter(tmp_path / "a", rank=4)).transposed


# Starts.


@pytest.mark.parametrize("init", [True, "gaussian", "orthogonal", "olora", "pissa", "pissa_niter_2", "mica", "eva"])
def test_the_config_tells_whether_an_adapter_starts_off_zero(tmp_path: Path, init: Any) -> None:
    model = adapt(two_layers(), "q_proj", init_lora_weights=init)
    started_off_zero = bool(update_in_peft(model, "layers.0.q_proj").norm() > 1e-5)
    assert load_adapter(saved(model, tmp_path)).alters_base == started_off_zero
    assert load_adapter(tmp_path, start=tmp_path).alters_base == started_off_zero


@pytest.mark.parametrize("init", ["corda", "lora_ga", "loftq", "some_later_one"])
def test_an_unknown_start_counts_as_off_zero(tmp_path: Path, init: str) -> None:
    assert load_adapter(write_adapter(tmp_path / "a", rank=4, init_lora_weights=init)).alters_base


@pytest.mark.parametrize("init", [False, None])
def test_a_random_start_leaves_the_base_as_it_was(tmp_path: Path, init: bool | None) -> None:
    adapter = load_adapter(saved(adapt(two_layers(), "q_proj", init_lora_weights=init), tmp_path))
    assert not adapter.alters_base and "all that it adds to the base" in adapter.remarks[0]
    assert load_adapter(tmp_path, start=tmp_path).alters_base


def test_a_pissa_learned_its_update_minus_that_of_its_start(tmp_path: Path) -> None:
    base: Any = two_layers()
    before = base.layers[0].q_proj.weight.detach().clone()
    model = adapt(base, "q_proj", init_lora_weights="pissa")
    # As PEFT's documentation has it, so that loading does not take it out of the base once more.
    config: Any = model.peft_config["default"]
    config.init_lora_weights = True
    saved(model, tmp_path / "start")
    for factor in model.parameters():
        factor.data += factor.requires_grad * torch.randn_like(factor)
    adapter = load_adapter(saved(model, tmp_path / "end"), start=tmp_path / "start")
    assert adapter.alters_base and adapter.start and "B A − B₀A₀" in adapter.remarks[0]
    first = next(iter(adapter.sites))
    merged: Any = model.merge_and_unload()
    learned = merged.layers[0].q_proj.weight.detach() - before
    assert_close(update(adapter, first) - update(adapter.start, first), learned, atol=1e-5, rtol=1e-4)


def test_a_start_of_zero_does_not_alter_the_base(tmp_path: Path) -> None:
    rewrite_tensors(write_adapter(tmp_path / "start", rank=4), zero_every_b)
    adapter = load_adapter(write_adapter(tmp_path / "a", rank=4), start=tmp_path / "start")
    assert adapter.start == load_adapter(tmp_path / "start")
    assert not adapter.alters_base and adapter.remarks == ()


def zero_every_b(tensors: dict[str, torch.Tensor]) -> None:
    for name in tensors:
        if "lora_B" in name:
            tensors[name] = torch.zeros_like(tensors[name])


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"rank": 3}, "rank=3"),
        ({"rank": 4, "layers": 3}, "q of layer 4 is not adapted there"),
        ({"rank": 4, "layers": 5}, "q of layer 5 .* not adapted here"),
        ({"rank": 4, "lora_alpha": 5}, "scale=1.25"),
    ],
)
def test_a_start_of_another_adapter_is_refused(tmp_path: Path, start: dict[str, Any], message: str) -> None:
    write_adapter(tmp_path / "a", rank=4)
    with pytest.raises(UserError, match=rf"start is not the start of .*a: .*{message}"):
        load_adapter(tmp_path / "a", write_adapter(tmp_path / "start", **start))


# Refusals.


def set_tensor(name: str, value: torch.Tensor) -> Callable[[Path], object]:
    return lambda folder: rewrite_tensors(folder, lambda tensors: tensors.update({name: value}))


def cut_short(folder: Path) -> None:
    weights = folder / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-10])


def add_another_adapter(tensors: dict[str, torch.Tensor]) -> None:
    for factor in "AB":
        tensors[f"{Q1}.lora_{factor}.other.weight"] = tensors[f"{Q1}.lora_{factor}.weight"].clone()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "adapter_config.json").unlink(), "adapter_config.json is missing"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config.json cannot be read"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "peft_type None"),
        (set_config(peft_type="ADALORA"), "'ADALORA'"),
        (set_config(lora_alpha=None), "lora_alpha is null, not a finite number"),
        (set_config(use_qalora=True), "use_qalora: A acts on pooled inputs"),
        (set_config(use_bdlora={"nblocks": 2}), "use_bdlora: "),
        (set_config(kasa_config={"beta": 1}), "kasa_config: "),
        (set_config(arrow_config={"top_k": 2}), "arrow_config: "),
        (lambda folder: (folder / WEIGHTS).unlink(), "adapter_model.safetensors is missing"),
        (cut_short, "adapter_model.safetensors cannot be read"),
        (lambda folder: (folder / WEIGHTS).write_bytes(b"PK"), "adapter_model.safetensors cannot be read"),
        (lambda folder: rewrite_tensors(folder, dict.clear), "ZeRO-3"),
        (lambda folder: rewrite_tensors(folder, lambda t: t.pop(f"{Q1}.lora_B.weight")), f"lacks {Q1}.lora_B"),
        (lambda folder: rewrite_tensors(folder, lambda t: t.pop(f"{Q1}.lora_A.weight")), f"lacks {Q1}.lora_A"),
        (lambda folder: rewrite_tensors(folder, add_another_adapter), "the adapters ['None', 'other']"),
        (set_tensor(f"{Q1}.lora_A.weight", torch.ones(4, WIDTH).to(torch.float8_e4m3fn)), "dtype F8_E4M3"),
        (set_tensor(f"{Q1}.lora_B.weight", torch.ones(WIDTH, 5)), "B (16, 5)"),
        (set_tensor(f"{Q1}.lora_A.weight", torch.ones(4, WIDTH, 1)), "A (4, 16, 1)"),
        (set_tensor(f"{Q1}.lora_A.weight", torch.ones(4, 0)), "A (4, 0)"),
    ],
)
def test_a_broken_folder_is_reported_in_one_line_that_names_the_cause(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = write_adapter(tmp_path / "a", rank=4)
    spoil(folder)
    with pytest.raises(UserError) as error:
        load_adapter(folder)
    assert message in str(error.value) and str(folder) in str(error.value) and "\n" not in str(error.value)


def test_split_layers_are_recorded_under_the_key_of_older_snapshots() -> None:
    assert SPLIT == "deltaw.split"
