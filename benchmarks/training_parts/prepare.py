"""Write the examples of a workload as text and as tokens, the setting that every side gets, and what a step computes.

python -m training_parts.prepare FOLDER BASE DATA STEPS    (settings of train.py as lists in JSON)

There are as many examples as the training takes, so that every side learns each of them once, whatever its order.
Tokens are those that `train.py` makes of the text.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from numpy.typing import NDArray
from omegaconf import DictConfig

from deltaw.config.folder import BUNDLED, CONF
from deltaw.config.schema import register
from deltaw.data.corpus import Corpus
from deltaw.data.held_out import held_out
from deltaw.data.record import Pair
from deltaw.model.loading import load_tokenizer
from deltaw.plan.forecast import shape_of, workload_of
from deltaw.training.build import arms_of, corpus_of, data_of
from training_parts.workloads import RANKS, VALIDATION, examples_of


def main() -> None:
    folder = Path(sys.argv[1])
    base, data, steps = map(json.loads, sys.argv[2:])
    register()
    cfg = configured(*base, *data, f"trainer.max_steps={steps}")
    corpus = corpus_of(cfg.data, cfg.task, load_tokenizer(cfg.model.path))
    learnt, validation, _, _ = held_out(corpus, VALIDATION, 0)
    needed = steps * cfg.data.batch
    if len(learnt) < needed:
        sys.exit(f"error: {steps} steps learn {needed} examples, and the data have {len(learnt)}: give fewer --steps")
    learnt = np.random.default_rng(0).choice(learnt, needed, replace=False)
    records = [read.record for read in data_of(cfg.data, cfg.task).records()]
    for name, chosen in (("train", learnt), ("validation", validation)):
        pairs = [records[row] for row in corpus.groups[chosen]]  # without data.group, the group is the row
        write_pairs(folder / f"{name}.jsonl", pairs)
        (folder / f"{name}.tokens.json").write_text(json.dumps([tokens_of(corpus, int(i)) for i in chosen]))
    lengths = corpus.lengths(learnt).astype(np.int64)
    tokens = lengths[:, :2].sum(1)
    needed_flops = {rank: flops(base, data, rank, tokens, lengths[:, 2]) for rank in RANKS}
    learns = {"tokens": int(tokens.sum()), "flops": needed_flops}
    about = {**setting(cfg), "train": learns}
    (folder / "about.json").write_text(json.dumps(about, indent=2))
    ours = configured(*base, *examples_of(folder, about))
    corpus_of(ours.data, ours.task, load_tokenizer(ours.model.path))  # puts its tokens into the cache


def configured(*settings: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", [*settings])


def write_pairs(file: Path, pairs: list[Any]) -> None:
    rows = [{"prompt": pair.prompt, "completion": pair.completion} for pair in pairs if isinstance(pair, Pair)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def tokens_of(corpus: Corpus, number: int) -> dict[str, list[int]]:
    """An example as transformers' models take it: labels are −100 on the prompt."""
    example = corpus[number]
    return {
        "input_ids": [*example.prompt, *example.completion],
        "labels": [*[-100] * len(example.prompt), *example.labels],
    }


def setting(cfg: DictConfig) -> dict[str, Any]:
    """What every side is told of model and optimiser."""
    arm = arms_of(cfg)[0]
    total: int = cfg.trainer.max_steps
    return {
        "model": str(BUNDLED) if cfg.model.path == "bundled" else cfg.model.path,
        "dtype": cfg.model.dtype,
        "batch": cfg.data.batch,
        "lr": arm.lr,
        "alpha": arm.alpha,
        "steps": total,
        "warmup_steps": max(1, round(cfg.optim.warmup * total)),
        "clip": cfg.optim.clip,
        "weight_decay": cfg.optim.weight_decay,
        "max_length": cfg.data.max_length,
        "eos": cfg.data.eos,
    }


def flops(base: list[str], data: list[str], rank: int, tokens: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """FLOPs forward and backward that an arm needs for examples of so many tokens and labels.

    Frozen weights have a product forward and one for the gradient of their input, the arm's also one for their own, and
    so has attention, of which a causal mask needs half. The head is needed at labels alone, whoever computes more.
    """
    cfg = configured(*base, *data, f"arms.ranks=[{rank}]", "arms.shadows=0")
    row = workload_of(cfg, arms_of(cfg)).row
    frozen = row.layers_flops - row.attention_flops - row.arms_flops
    head = shape_of(cfg).model.get_output_embeddings().weight.numel()
    shares = tokens / row.tokens
    in_layers = (2 * frozen + 3 * row.arms_flops) * shares.sum() + 3 * row.attention_flops * (shares**2).sum()
    return float(in_layers + 4 * head * labels.sum())


if __name__ == "__main__":
    main()
