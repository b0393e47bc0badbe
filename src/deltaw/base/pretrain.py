"""Make the bundled base: a byte-level BPE and a small Llama, pretrained on the Python standard library's source.

python -m deltaw.base.pretrain                      as shipped: 2100 steps, an hour and a half on one core
python -m deltaw.base.pretrain --output some/dir --steps 10

The text is that of the running interpreter, less the modules that the arms learn from.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.optim import AdamW, Muon
from torch.optim.lr_scheduler import LambdaLR
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from deltaw.base import BUNDLED
from deltaw.data.library import pretraining_files

VOCABULARY = 2048
END = "<|end|>"
ROWS, LENGTH = 16, 256  # windows of a batch, tokens of a window
WARMUP = 50  # steps
HELD_OUT = 40  # every 40th document is kept for the loss that the model card reports


def documents() -> tuple[list[str], list[str]]:
    """The pretraining text, a document a file, shuffled: (to train on, held out)."""
    texts = []
    for path in pretraining_files():
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:  # the library's own tests of other encodings
            continue
    random.Random(0).shuffle(texts)
    return [text for i, text in enumerate(texts) if i % HELD_OUT], texts[::HELD_OUT]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE, so that no text is out of its vocabulary."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=END, eos_token=END, pad_token=END)


def tokenise(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """All documents in one row of token ids, each ended by `END`."""
    ids = tokenizer(texts, verbose=False)["input_ids"]
    return torch.tensor([token for row in ids for token in [*row, tokenizer.eos_token_id]])


def build(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model, 6.85 M parameters."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=8,
        num_attention_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def windows(tokens: Tensor, steps: int) -> Iterator[Tensor]:
    """`steps` batches (ROWS, LENGTH); an epoch shows the text once, each time cut at another phase."""
    generator = torch.Generator().manual_seed(0)
    queue = tokens.new_empty(0, LENGTH)
    for _ in range(steps):
        while len(queue) < ROWS:
            phase = int(torch.randint(LENGTH, (), generator=generator))
            cut = _rows(tokens[phase:])
            queue = torch.cat([queue, cut[torch.randperm(len(cut), generator=generator)]])
        yield queue[:ROWS]
        queue = queue[ROWS:]


def fit(model: LlamaForCausalLM, tokens: Tensor, steps: int) -> None:
    """Muon on the layers' matrices, AdamW on embedding and norms; bfloat16 products, float32 weights."""
    names = dict(model.named_parameters())
    matrices = [p for name, p in names.items() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in names.items() if p.ndim != 2 or "embed" in name]
    optimizers = [
        Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.01),
        AdamW(others, lr=3e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedules = [
        LambdaLR(o, lambda step: min((step + 1) / WARMUP, (steps - step) / max(1, steps - WARMUP))) for o in optimizers
    ]
    bar = tqdm(windows(tokens, steps), "pretraining", total=steps, unit="step")
    for step, batch in enumerate(bar):
        with torch.autocast(model.device.type, torch.bfloat16):
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
    """Nats a token over `tokens` in windows of LENGTH."""
    rows = _rows(tokens).to(model.device)
    losses = [model(input_ids=batch, labels=batch).loss.item() * len(batch) for batch in rows.split(32)]
    return sum(losses) / len(rows)


def _rows(tokens: Tensor) -> Tensor:
    return tokens[: len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=BUNDLED)
    parser.add_argument("--steps", type=int, default=2100)
    args = parser.parse_args()

    print("reading and tokenising the standard library", flush=True)
    learnt, held_out = documents()
    tokenizer = train_tokenizer(learnt)
    tokens = tokenise(learnt, tokenizer)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = build(tokenizer)
    fit(model, tokens, args.steps)

    model.bfloat16().save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)
    loss = mean_loss(model.float().eval(), tokenise(held_out, tokenizer))
    print(f"{args.output}: {len(tokens):,} tokens, {args.steps} steps, held-out loss {loss:.3f} nats a token")


if __name__ == "__main__":
    main()
