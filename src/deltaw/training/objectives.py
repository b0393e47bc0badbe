"""The objective of each task: how examples become a batch, and which logits are compared with which labels.

Shapes: R rows of a batch, T tokens of the longest row, S tokens of the longest row of an encoder, C classes (tokens
of the vocabulary, or labels).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from deltaw.data.example import IGNORED, Example
from deltaw.model.packed_attention import Attention, by_positions


class Causal:
    """Predict every token of a completion from the prompt and the tokens before it.

    Args:
        pad: the token that fills up rows.
        attention: makes the arguments of the model that keep the examples of a packed row apart.
    """

    task_type = "CAUSAL_LM"  # as PEFT calls it
    unit = "token"  # losses are a mean over these

    def __init__(self, pad: int, attention: Attention = by_positions):
        self.pad, self.attention = pad, attention

    def collate(self, rows: list[Example]) -> dict[str, Tensor]:
        """Prompts with their completions, padded on the right: input_ids, attention_mask and labels, each (R, T)."""
        ids = [row.prompt + row.completion for row in rows]
        labels = [[IGNORED] * len(row.prompt) + row.labels for row in rows]
        return _read(ids, self.pad) | {"labels": _padded(labels, IGNORED)}

    def logits(self, model: nn.Module, batch: dict[str, Tensor]) -> Float[Tensor, "R tokens C"]:
        """Logits for all tokens but the first; a batch with `position_ids` is packed."""
        packed = self.attention(model, batch["position_ids"]) if "position_ids" in batch else {}
        # Padding is on the right, where causal attention does not look; without a mask, PyTorch uses faster kernels.
        logits: Tensor = model(input_ids=batch["input_ids"], **packed).logits
        return logits[:, :-1]

    def targets(self, batch: dict[str, Tensor]) -> Int[Tensor, "R tokens"]:
        """The true classes, to compare with `logits`."""
        return batch["labels"][:, 1:]

    def read(self, batch: dict[str, Tensor]) -> list[Bool[Tensor, "R _"]]:
        """For each sequence that the model reads: which tokens are not padding."""
        return [batch["attention_mask"].bool()]


class Seq2Seq:
    """Predict every token of a completion from the tokens before it and from the prompt, which an encoder reads.

    Args:
        pad: the token that fills up rows.
    """

    task_type = "SEQ_2_SEQ_LM"
    unit = "token"

    def __init__(self, pad: int):
        self.pad = pad

    def collate(self, rows: list[Example]) -> dict[str, Tensor]:
        """Prompts as input_ids and attention_mask (R, S), labels (R, T), padded on the right; S and T differ.

        S ≠ T, so that the shape of a layer's input tells which of the two sequences it reads.
        """
        prompts, labels = _read([row.prompt for row in rows], self.pad), [row.labels for row in rows]
        same_length = max(map(len, labels)) == prompts["input_ids"].shape[1]
        return prompts | {"labels": _padded(labels, IGNORED, more=int(same_length))}

    def logits(self, model: nn.Module, batch: dict[str, Tensor]) -> Float[Tensor, "R T C"]:
        """Logits for all tokens of the completions."""
        source, labels = {name: batch[name] for name in ("input_ids", "attention_mask")}, batch["labels"]
        shifted = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        # A model without this method shifts the labels itself, and computes a loss that nobody uses.
        target = {"decoder_input_ids": shifted(labels)} if shifted else {"labels": labels}
        logits: Tensor = model(**source, **target).logits
        return logits

    def targets(self, batch: dict[str, Tensor]) -> Int[Tensor, "R T"]:
        """The true classes, to compare with `logits`."""
        return batch["labels"]

    def read(self, batch: dict[str, Tensor]) -> list[Bool[Tensor, "R _"]]:
        """Which tokens are not padding, in the sequence of the encoder and in that of the decoder."""
        return [batch["attention_mask"].bool(), batch["labels"] != IGNORED]


class Classification:
    """Predict the label of a row from its text.

    Args:
        pad: the token that fills up rows; a decoder classifies by the last token that is not `pad`.
    """

    task_type = "SEQ_CLS"
    unit = "row"

    def __init__(self, pad: int):
        self.pad = pad

    def collate(self, rows: list[Example]) -> dict[str, Tensor]:
        """Texts padded on the right: input_ids and attention_mask (R, T); labels (R, 1).

        With token_type_ids (R, T) if one of them is 1: without them, a model that knows types takes all as 0.
        """
        batch = _read([row.prompt for row in rows], self.pad) | {"labels": torch.tensor([row.labels for row in rows])}
        if any(row.token_types for row in rows):
            types = [[*row.token_types] or [0] * len(row.prompt) for row in rows]
            batch["token_type_ids"] = _padded(types, 0)
        return batch

    def logits(self, model: nn.Module, batch: dict[str, Tensor]) -> Float[Tensor, "R 1 C"]:
        """Logits for the label of each row."""
        read = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        logits: Tensor = model(**read).logits
        return logits[:, None]

    def targets(self, batch: dict[str, Tensor]) -> Int[Tensor, "R 1"]:
        """The true classes, to compare with `logits`."""
        return batch["labels"]

    def read(self, batch: dict[str, Tensor]) -> list[Bool[Tensor, "R _"]]:
        """Which tokens are not padding."""
        return [batch["attention_mask"].bool()]


Objective = Causal | Seq2Seq | Classification

OBJECTIVES: dict[str, type[Objective]] = {"causal": Causal, "seq2seq": Seq2Seq, "classification": Classification}


def summed_losses(
    logits: Float[Tensor, "rows tokens classes"],
    targets: Int[Tensor, "rows tokens"],
    arms: int,
    smoothing: float = 0.0,
) -> Float[Tensor, " arms"]:
    """Cross-entropy of each arm, summed over its labels, in nats.

    Args:
        logits: the rows of the first arm, then those of the second, and so on: equally many for each.
        targets: labels, `IGNORED` where a token has none.
        arms: number of arms.
        smoothing: share of each label that is spread equally over all classes, in [0, 1).
    """
    return label_losses(logits, targets, smoothing).view(arms, -1).sum(1)


def label_losses(
    logits: Float[Tensor, "rows tokens classes"], targets: Int[Tensor, "rows tokens"], smoothing: float = 0.0
) -> Float[Tensor, "rows tokens"]:
    """Cross-entropy of each label, in nats; 0 where a token has none. Logits in bfloat16 give losses in float32."""
    logits = logits.float() if logits.dtype is torch.bfloat16 else logits
    losses = cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none", label_smoothing=smoothing
    )
    return losses.view_as(targets)


def _read(rows: list[list[int]], pad: int) -> dict[str, Tensor]:
    return {"input_ids": _padded(rows, pad), "attention_mask": _padded([[1] * len(ids) for ids in rows], 0)}


def _padded(rows: list[list[int]], filler: int, more: int = 0) -> Int[Tensor, "R T"]:
    """The rows, filled up to the length of the longest plus `more`."""
    width = max(map(len, rows)) + more
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])
