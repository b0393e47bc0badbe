"""A base, a text and a run small enough for a test: three layers of width 32, with fewer heads for k and v."""

import json
import random
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deltaw.config import register
from deltaw.data.pairs import Examples, collate, held_out
from deltaw.job import corpus_of, train

register()
ROOT = Path(__file__).parent.parent
WORDS = "add append close copy count delete find flush insert join load open read save split write".split()


def make_base(folder: Path) -> Path:
    """Save a Llama with random weights and a byte-level BPE."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        WORDS, trainers.BpeTrainer(vocab_size=300, special_tokens=["<end>"], initial_alphabet=alphabet)
    )
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_pairs(file: Path, count: int = 60) -> Path:
    """Write prompts of unequal length, each completed by its words in reverse."""
    draw = random.Random(0)
    rows = [draw.sample(WORDS, draw.randint(1, 6)) for _ in range(count)]
    lines = [{"prompt": " ".join(row) + " >", "completion": " ".join(reversed(row))} for row in rows]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def learnt(folder: Path) -> Examples:
    """The pairs in `folder` that a run of `overrides` learns, as it reads them."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", overrides(folder))
    corpus = corpus_of(cfg.data, "causal", AutoTokenizer.from_pretrained(folder / "base"))
    return Examples(corpus, held_out(len(corpus), 8)[0], collate)


def overrides(folder: Path, *more: str) -> list[str]:
    """What makes `train.py` a tiny run on the base and pairs in `folder`, writing to `folder`/runs."""
    return [
        "model=hub",
        f"model.path={folder / 'base'}",
        "data=jsonl",
        f"data.path={folder / 'pairs.jsonl'}",
        "run.dir=" + str(folder) + "/runs/${run.name}",
        "data.validation=8",
        "data.batch=4",
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
