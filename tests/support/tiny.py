"""A base, a text and a run small enough for a test: three layers of width 32, with fewer heads for k and v."""

import json
import random
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from deltaw.commands.train import train
from deltaw.config.schema import register
from deltaw.data.batches import Examples
from deltaw.data.held_out import held_out
from deltaw.training.build import corpus_of
from deltaw.training.objectives import Causal

register()
ROOT = Path(__file__).parents[2]
WORDS = "add append close copy count delete find flush insert join load open read save split write".split()


def make_base(folder: Path, width: int = 32) -> Path:
    """Save a Llama with random weights and a byte-level BPE."""
    make_tokenizer(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=width,
        intermediate_size=3 * width // 2,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2 * (32 / width) ** 0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_bert(folder: Path) -> Path:
    """Save a BERT of two layers, as pretrained on masked tokens, whose tokenizer has no end of text."""
    make_tokenizer(folder, eos_token=None, pad_token="<pad>")
    config = BertConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=1,
        initializer_range=0.2,
    )
    return _saved(BertForMaskedLM(config), folder)


def make_t5(folder: Path) -> Path:
    """Save a T5 of two layers on either side."""
    make_tokenizer(folder, pad_token="<pad>", ends=True)
    config = T5Config(
        vocab_size=300,
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        pad_token_id=1,
        eos_token_id=0,
    )
    config.decoder_start_token_id = 1
    return _saved(T5ForConditionalGeneration(config), folder)


def make_bart(folder: Path) -> Path:
    """Save a BART of two layers on either side."""
    make_tokenizer(folder, pad_token="<pad>", ends=True)
    config = BartConfig(
        vocab_size=300,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
        init_std=0.2,
    )
    return _saved(BartForConditionalGeneration(config), folder)


def _saved(model: PreTrainedModel, folder: Path) -> Path:
    """Save a model with every weight drawn from one seed, wide enough that its logits differ from row to row."""
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.ndim == 2:
            weight.data.normal_(0, 0.2, generator=generator)
    model.save_pretrained(folder)
    return folder


def make_tokenizer(folder: Path, ends: bool = False, eos_token: str | None = "<end>", **tokens: str) -> None:
    """Save a byte-level BPE; where it `ends` texts, with its end of text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<end>", *tokens.values()]
    bpe.train_from_iterator(
        WORDS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    if ends:
        bpe.post_processor = TemplateProcessing(single="$A <end>", special_tokens=[("<end>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=eos_token, **tokens).save_pretrained(folder)


def make_pairs(file: Path, count: int = 60) -> Path:
    """Write prompts of unequal length, each completed by its words in reverse."""
    draw = random.Random(0)
    rows = [draw.sample(WORDS, draw.randint(1, 6)) for _ in range(count)]
    lines = [{"prompt": " ".join(row) + " >", "completion": " ".join(reversed(row))} for row in rows]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def make_labelled(file: Path, count: int = 60) -> Path:
    """Write texts of unequal length, each labelled by how its first word ranks among three thirds of all words."""
    draw = random.Random(0)
    rows = [draw.sample(WORDS, draw.randint(1, 6)) for _ in range(count)]
    lines = [{"text": " ".join(row), "label": WORDS.index(row[0]) * 3 // len(WORDS)} for row in rows]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def learnt(folder: Path) -> Examples:
    """The pairs in `folder` that a run of `overrides` learns, as it reads them."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides(folder))
    corpus = corpus_of(cfg.data, "causal", AutoTokenizer.from_pretrained(folder / "base"))
    return Examples(corpus, held_out(corpus, 8, 0).learnt, Causal(0).collate)


def overrides(folder: Path, *more: str) -> list[str]:
    """What makes `train.py` a tiny run on the base and pairs in `folder`, writing to `folder`/runs."""
    return [
        "model=hub",
        f"model.path={folder / 'base'}",
        "data=jsonl",
        f"data.path={folder / 'pairs.jsonl'}",
        "run.dir=" + str(folder) + "/runs/${run.name}",
        "data.validation=8",
        "data.judged=0",
        "data.batch=4",
        "data.micro_batch=4",  # all rows in one pass, which is fastest for so small a base
        "data.max_length=40",
        "arms.ranks=[2,6]",
        "trainer.accelerator=cpu",
        "trainer.devices=1",
        "trainer.precision=64-true",
        "trainer.max_steps=20",
        "optim.lr=2e-3",
        "snapshots.every=5",
        "metrics.every=1",
        "metrics.validate_every=7",
        *more,
    ]


def run(folder: Path, *more: str) -> Path:
    """Train in this process; returns the run directory."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides(folder, *more))
    train(cfg)
    return Path(cfg.run.dir)


def factors(run: Path, arm: str, step: int = 20) -> dict[str, torch.Tensor]:
    return load_file(run / "snapshots" / arm / f"step-{step:08d}" / "adapter_model.safetensors")


def largest_difference(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    assert left.keys() == right.keys()
    return max((left[name] - right[name]).abs().max().item() for name in left)


def metrics(run: Path) -> list[str]:
    """The rows of `metrics.csv` that no clock has a part in."""
    return [line for line in (run / "metrics.csv").read_text().splitlines() if "_s," not in line]
