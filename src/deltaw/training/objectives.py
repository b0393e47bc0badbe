"""What a task asks of the arms: how its rows become a batch, and which logits are held against which labels.

Shapes: R rows of a batch, T tokens of the longest, S of them in an encoder, C classes (tokens or labels).
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from deltaw.data.example import IGNORED, Example
from deltaw.model.packed_attention import Attention, by_positions


class Causal:
    """Every token of a completion, from the prompt and the tokens before it.

    Args:
        pad: the token that fills rows up.
        attention: what keeps the examples of packed rows apart.
    """

    task_type = "CAUSAL_LM"  # as PEFT calls it
    unit = "token"  # what losses are a mean over

    def __init__(self, pad: int, attention: Attention = by_positions):
        self.pad, self.attention = pad, attention

    def collate(self, rows: list[Example]) -> dict[str, Tensor]:
        """Prompts with their completions, padded on the right: input_ids, attention_mask and labels, each (R, T)."""
        whole = [row.prompt + row.completion for row in rows]
        labels = [[IGNORED] * len(row.prompt) + row.labels for row in rows]
        return _read(whole, self.pad) | {"labels": _padded(labels, IGNORED)}

    def logits(self, model: nn.Module, batch: dict[str, Tensor]) -> Float[Tensor, "R tokens C"]:
        """Logits of all tokens but the first; rows with `position_ids` are packed."""
        packed = self.attention(model, batch["position_ids"]) if "position_ids" in batch else {}
        # Padding is on the right, where causal attention does not look: without a mask the fast kernels serve.
        logits: Tensor = model(input_ids=batch["input_ids"], **packed).logits
        return logits[:, :-1]

    def targets(self, batch: dict[str, Tensor]) -> Int[Tensor, "R tokens"]:
        """What `logits` are held against."""
        return batch["labels"][:, 1:]

    def read(self, batch: dict[str, Tensor]) -> list[Bool[Tensor, "R _"]]:
        """Which tokens are no padding, for each sequence that layers of the model read."""
        return [batch["attention_mask"].bool()]


class Seq2Seq:
    """Every token of a completion, from the prompt, which an encoder reads, and the tokens before it.

    Args:
        pad: the token that fills rows up.
    """

    task_type = "SEQ_2_SEQ_LM"
    unit = "token"

    def __init__(self, pad: int):
        self.pad = pad

    def collate(self, rows: list[Example]) -> dict[str, Tensor]:
        """Prompts as input_ids and attention_mask (R, S), labels (R, T), padded on the right; S and T differ.

        So the shape of what a layer reads tells which of the two sequences it is.
        """
        read, labels = _read([row.prompt for row in rows], self.pad), [row.labels for row in rows]
        as_long = max(map(len, labels)) == read["input_ids"].shape[1]
        return read | {"labels": _padded(labels, IGNORED, more=int(as_long))}

    def logits(self, model: nn.Module, batch: dict[str, Tensor]) -> Float[Tensor, "R T C"]:
        """Logits of all tokens of the completions."""
        source, labels = {name: batch[name] for name in ("input_ids", "attention_mask")}, batch["labels"]
        shifted = getattr(model, "prepare_decoder_input_ids_from_labels", None)
        # A model without it shifts labels as well, and takes a loss of its own that is not used.
        target = {"decoder_input_ids": shifted(labels)} if shifted else {"labels": labels}
        logits: Tensor = model(**source, **target).logits
        return logits

    def targets(self, batch: dict[str, Tensor]) -> Int[Tensor, "R T"]:
        """What `logits` are held against."""
        return batch["labels"]

    def read(self, batch: dict[str, Tensor]) -> list[Bool[Tensor, "R _"]]:
        """Which tokens are no padding, in the encoder's sequence and in the decoder's."""
        return [batch["attention_mask"].bool(), batch["labels"] != IGNORED]


class Classification:
    """The label of a row, from its text.

    Args:
        pad: the token that fills rows up; a decoder pools the last token that is another.
    """

    task_type = "SEQ_CLS"
    unit = "row"

    def __init__(self, pad: int):
        self.pad = pad

    def collate(self, rows: list[Example]) -> dict[str, Tensor]:
        """Texts padded on the right: input_ids and attention_mask (R, T); labels (R, 1).

        With token_type_ids (R, T) where one is 1; a model that knows types takes none given as 0.
        """
        read, labels = _read([row.prompt for row in rows], self.pad), torch.tensor([row.labels for row in rows])
        ids, second = read["input_ids"], read["input_ids"] < 0
        types = {"input_ids": torch.where(second, -1 - ids, ids), "token_type_ids": second.long()}
        return read | {"labels": labels} | (types if second.any() else {})

    def logits(self, model: nn.Module, batch: dict[str, Tensor]) -> Float[Tensor, "R 1 C"]:
        """Logits of the labels."""
        read = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
        logits: Tensor = model(**read).logits
        return logits[:, None]

    def targets(self, batch: dict[str, Tensor]) -> Int[Tensor, "R 1"]:
        """What `logits` are held against."""
        return batch["labels"]

    def read(self, batch: dict[str, Tensor]) -> list[Bool[Tensor, "R _"]]:
        """Which tokens are no padding."""
        return [batch["attention_mask"].bool()]


Objective = Causal | Seq2Seq | Classification

OBJECTIVES: dict[str, type[Objective]] = {"causal": Causal, "seq2seq": Seq2Seq, "classification": Classification}


def summed(
    logits: Float[Tensor, "rows tokens classes"],
    targets: Int[Tensor, "rows tokens"],
    arms: int,
    smoothing: float = 0.0,
) -> Float[Tensor, " arms"]:
    """Cross-entropy summed over each arm's labels, in nats: the rows are as many of every arm, an arm's together.

    Args:
        logits: bfloat16 is summed in float32.
        targets: labels, `IGNORED` where there is none.
        arms: how many.
        smoothing: share of a label that all classes get alike, in [0, 1).
    """
    logits = logits.float() if logits.dtype is torch.bfloat16 else logits
    losses = cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none", label_smoothing=smoothing
    )
    return losses.view(arms, -1).sum(1)


def _read(rows: list[list[int]], pad: int) -> dict[str, Tensor]:
    return {"input_ids": _padded(rows, pad), "attention_mask": _padded([[1] * len(ids) for ids in rows], 0)}


def _padded(rows: list[list[int]], filler: int, more: int = 0) -> Int[Tensor, "R T"]:
    """Rows filled up to the longest, and by `more` beyond it."""
    width = max(map(len, rows)) + more
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])
