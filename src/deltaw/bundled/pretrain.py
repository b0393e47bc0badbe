"""Make a base: a byte-level BPE and a small Llama, pretrained on the Python standard library's source.

python -m deltaw.bundled.pretrain                      the bundled base: 2100 steps, an hour and a half on one core
python -m deltaw.bundled.pretrain --output some/dir --steps 10

The text is the library of the running interpreter, without the modules that the arms learn from. A run whose config
has `model.pretrain` makes its base here.
"""

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from deltaw.config.folder import BUNDLED
from deltaw.data.library import pretraining_files
from deltaw.errors import UserError
from deltaw.run.files import locked, replacing

VOCABULARY = 2048
END = "<|end|>"
LENGTH = 256  # tokens of a window
WARMUP = 50  # steps
HELD_OUT = 40  # every 40th document is held out for the loss in the model card
RECIPE = "pretrain.json"  # beside the weights


@dataclass(frozen=True)
class Recipe:
    """Sizes of a Llama and the length of its training; the defaults are the bundled base's.

    Attributes:
        layers, width, intermediate, heads: of the decoder; `intermediate` is the width inside a feed-forward block.
        steps: optimiser steps.
        rows: windows of 256 tokens in a step.
        muon: Muon and products in bfloat16. False means AdamW and float32, for a CPU without bfloat16 instructions,
            on which Muon takes minutes per step of a deep model.

    Raises:
        UserError: a size is below 1, or `heads` does not divide `width` into even parts.
    """

    layers: int = 8
    width: int = 256
    intermediate: int = 688
    heads: int = 4
    steps: int = 2100
    rows: int = 16
    muon: bool = True

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1 and name != "muon":
                raise UserError(f"model.pretrain.{name}={value}: give 1 or more")
        if self.width % (2 * self.heads):
            raise UserError(
                f"model.pretrain.width={self.width} does not give model.pretrain.heads={self.heads} heads of an even "
                f"width: choose a multiple of {2 * self.heads}"
            )


def documents() -> tuple[list[str], list[str]]:
    """The pretraining text, shuffled, one document per file: (to train on, held out)."""
    texts = []
    for path in pretraining_files():
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:  # tests of other encodings
            continue
    random.Random(0).shuffle(texts)
    return [text for i, text in enumerate(texts) if i % HELD_OUT], texts[::HELD_OUT]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE, whose vocabulary covers any text."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=END, eos_token=END, pad_token=END)


def tokenise(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """The token ids of all documents one after another, with `END` after each."""
    ids = tokenizer(texts, verbose=False)["input_ids"]
    return torch.tensor([token for row in ids for token in [*row, tokenizer.eos_token_id]])


def build(tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> LlamaForCausalLM:
    """The untrained model; the bundled one has 6.85 M parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=recipe.width,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):  # so that 96 layers add up to as much as 8
            parameter.data.mul_((Recipe.layers / recipe.layers) ** 0.5)
    return model


def windows(tokens: Tensor, steps: int, rows: int) -> Iterator[Tensor]:
    """`steps` batches (rows, LENGTH); each epoch shows the text once, cut at another offset."""
    generator = torch.Generator().manual_seed(0)
    queue = tokens.new_empty(0, LENGTH)
    for _ in range(steps):
        while len(queue) < rows:
            offset = int(torch.randint(LENGTH, (), generator=generator))
            epoch = _rows(tokens[offset:])
            queue = torch.cat([queue, epoch[torch.randperm(len(epoch), generator=generator)]])
        yield queue[:rows]
        queue = queue[rows:]


def fit(model: LlamaForCausalLM, tokens: Tensor, steps: int, rows: int, muon: bool = True) -> None:
    """Train with Muon on the layers' matrices and AdamW on embedding and norms, in bfloat16; see `Recipe.muon`."""
    names = dict(model.named_parameters())
    matrices = [p for name, p in names.items() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in names.items() if p.ndim != 2 or "embed" in name]
    optimizers = [
        Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.01) if muon else AdamW(matrices, lr=5e-4),
        AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedules = [
        LambdaLR(o, lambda step: min((step + 1) / WARMUP, (steps - step) / max(1, steps - WARMUP))) for o in optimizers
    ]
    bar = tqdm(windows(tokens, steps, rows), "pretraining", total=steps, unit="step", disable=None)
    for step, batch in enumerate(bar):
        with torch.autocast(model.device.type, torch.bfloat16, enabled=muon):
            loss = model(input_ids=batch.to(model.device), labels=batch.to(model.device)).loss
        loss.backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        if step % 10 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")


@torch.no_grad()
def mean_loss(model: LlamaForCausalLM, tokens: Tensor) -> float:
    """Nats per token, over `tokens` in windows of LENGTH."""
    rows = _rows(tokens).to(model.device)
    losses = [model(input_ids=batch, labels=batch).loss.item() * len(batch) for batch in rows.split(32)]
    return sum(losses) / len(rows)


def _rows(tokens: Tensor) -> Tensor:
    return tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)


def pretrain(folder: Path, recipe: Recipe, tokenizer: PreTrainedTokenizerBase | None = None) -> None:
    """Write a base into `folder`; None trains a tokenizer on the same text."""
    print("reading and tokenising the standard library", flush=True)
    learnt, held_out = documents()
    tokenizer = tokenizer or train_tokenizer(learnt)
    tokens = tokenise(learnt, tokenizer)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = build(tokenizer, recipe)
    print(f"pretraining {model.num_parameters() / 1e6:.1f} M parameters on {len(tokens):,} tokens", flush=True)
    fit(model, tokens, recipe.steps, recipe.rows, recipe.muon)
    model.bfloat16().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    enough = max(1, recipe.steps * recipe.rows // 10) * LENGTH  # so that measuring takes no longer than training
    loss = mean_loss(model.float().eval(), tokenise(held_out, tokenizer)[:enough])
    print(f"{folder}: {recipe.steps} steps, held-out loss {loss:.3f} nats per token", flush=True)


def ensure(folder: Path, recipe: Recipe) -> None:
    """Make a base of `recipe`, with the bundled tokenizer, in `folder` unless it exists; one of several processes does.

    Raises:
        UserError: `folder` holds something made by another recipe.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f".{folder.name}.lock")):
        if not folder.exists():
            with replacing(folder) as new:
                pretrain(new, recipe, AutoTokenizer.from_pretrained(BUNDLED))
                (new / RECIPE).write_text(json.dumps(asdict(recipe), indent=2) + "\n", encoding="utf-8")
    made_by = json.loads((folder / RECIPE).read_text(encoding="utf-8")) if (folder / RECIPE).exists() else None
    if made_by is None or {"muon": True} | made_by != asdict(recipe):  # older recipes have no muon
        raise UserError(
            f"model.path={folder} holds a base made by {made_by}, not by model.pretrain={asdict(recipe)}: "
            "delete it, or give another model.path"
        )


def main() -> None:
    """Pretrain the bundled base, or a shorter trained one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=BUNDLED)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    args = parser.parse_args()
    pretrain(args.output, Recipe(steps=args.steps))


if __name__ == "__main__":
    main()
