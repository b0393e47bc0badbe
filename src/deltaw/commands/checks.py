"""What is refused in the first seconds of a run, before weights are read or a directory is made."""

from collections.abc import Callable

from omegaconf import DictConfig

from deltaw.data.corpus import Corpus
from deltaw.errors import UserError
from deltaw.lora.arm import Arm
from deltaw.lora.attach import check_arms
from deltaw.model.loading import Base, check_weights, longest_read, tokens_read
from deltaw.plan.forecast import shape_of
from deltaw.training.build import data_of, prepare_base


def check_inputs(cfg: DictConfig, arms: list[Arm]) -> Base:
    """Look at the first rows of the data, then at the config of the base.

    Returns:
        The base on the meta device.

    Raises:
        UserError: the data cannot be read for the task, or the base has no place for the arms.
    """
    data_of(cfg.data, cfg.task)
    base = shape_of(cfg)
    modules = prepare_base(cfg, base)
    check_arms(base.model, modules, arms)
    if not cfg.model.pretrain:
        check_weights(cfg.model.path)
    return base


def check_corpus(corpus: Corpus, base: Base, token: Callable[[int], object], arms: list[Arm]) -> None:
    """Refuse examples that the base cannot read: its tables of tokens and positions would be read beyond their ends.

    Args:
        corpus: the examples.
        base: on the meta device.
        token: the token with a number.
        arms: what is trained on the examples.

    Raises:
        UserError: an example has a token that the base has no embedding for, or is too long for its positions.
    """
    rows = tokens_read(base.model)
    drawn = {corpus.vocabulary - 1} if any(arm.control == "random" for arm in arms) else set()
    if unknown := sorted(number for number in {*corpus.tokens_from(rows), *drawn} if number >= rows):
        names = ", ".join(f"{token(number)!r} ({number})" for number in unknown[:4])
        raise UserError(
            f"the data have tokens that model.path={base.path} has no embedding for: {names}, and the embedding has "
            f"{rows} rows, from 0 to {rows - 1}: call resize_token_embeddings(len(tokenizer)) and save_pretrained on "
            "the base, and give the folder that this writes; or leave these tokens out of the tokenizer or the data"
        )
    longest, limit = corpus.longest(), longest_read(base.model)
    if limit is not None and (too_long := [key for key, tokens in longest.items() if tokens > limit]):
        raise UserError(
            f"an example has {max(longest.values())} tokens, and model.path={base.path} has positions for {limit}: "
            f"give {' '.join(f'{key}={limit}' for key in too_long)}"
        )
