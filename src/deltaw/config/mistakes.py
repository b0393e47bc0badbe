"""Mistakes in a config, on the command line or in YAML, in plain words in place of Hydra's and OmegaConf's."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import UnionType
from typing import Any, get_args, get_origin

from hydra.errors import HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    GrammarParseError,
    InterpolationResolutionError,
    MissingMandatoryValue,
    OmegaConfBaseException,
    ValidationError,
)
from yaml import YAMLError  # type: ignore[import-untyped]

from deltaw.config.keys import fields_of
from deltaw.errors import UserError, nearest

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_LISTS = {int: "a list of whole numbers, as [1,2]", float: "a list of numbers, as [0.1,0.2]", str: "a list of names"}


@contextmanager
def plain_words(config: type) -> Iterator[None]:
    """Within the block, the errors of Hydra, OmegaConf and YAML become a UserError in plain words.

    Args:
        config: the schema that the config follows.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        raise UserError(_explained(error, config)) from error


def check_complete(cfg: DictConfig, config: type) -> None:
    """Refuse a config that lacks a value.

    Raises:
        UserError: a key has no value and no default.
    """
    for name in sorted(OmegaConf.missing_keys(cfg)):
        raise UserError(_missing(name, config))


def unknown_key(name: str, config: type, groups: Collection[str] = ()) -> str:
    """That a key does not exist, with the keys that may have been meant."""
    known = [*(key for key, _, _ in fields_of(config)), *groups]
    last = name.rpartition(".")[2]
    same_end = [key for key in known if key.rpartition(".")[2] == last]
    ends = {key.rpartition(".")[2]: key for key in known}
    meant = " or ".join(same_end) or nearest(name, known) or ends.get(nearest(last, ends), "")
    return f"{name} is no key" + (f": did you mean {meant}?" if meant else "") + " (--help lists all keys)"


def expected(kind: Any) -> str:
    """The values of a type in words that complete "give …"."""
    inner = [one for one in (get_args(kind) if isinstance(kind, UnionType) else (kind,)) if one is not type(None)]
    words = [_LISTS.get(get_args(one)[0]) if get_origin(one) is list else _KINDS.get(one) for one in inner]
    return " or ".join(filter(None, words)) or "its keys one by one, as --help lists them"


def _explained(error: Exception, config: type) -> str:
    for one in _chain(error):  # a class that the config names may raise it
        if isinstance(one, UserError):
            return str(one)
    mistake = next((one for one in _chain(error) if isinstance(one, OmegaConfBaseException)), error)
    file = re.match(r"In '([^']+)'", str(error)) if mistake is not error else None
    return _in_plain_words(mistake, config) + (f" (in {file[1]}.yaml)" if file else "")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes: Hydra raises its own within the handler of OmegaConf's."""
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _in_plain_words(mistake: BaseException, config: type) -> str:
    key = getattr(mistake, "full_key", None) or ""
    match mistake:
        case MissingConfigException() if mistake.missing_cfg_file:
            return _no_choice(str(mistake.missing_cfg_file), mistake.options or [])
        case MissingMandatoryValue():
            return _missing(key, config)
        case ConfigKeyError() | ConfigAttributeError() if key:
            return unknown_key(key, config)
        case ValidationError() if key:
            return _wrong_type(key, mistake, config)
        case GrammarParseError():
            return f"{key or 'a value'}: ${{ begins the name of another key, and }} must end it"
        case InterpolationResolutionError() | OmegaConfBaseException() if key:
            return f"{key}: {re.sub(r'^.* raised while resolving interpolation: ', '', _without_hints(mistake))}"
        case InstantiationException() if mistake.__cause__:
            return _without_hints(mistake.__cause__)
        case YAMLError():
            return f"a config file is no YAML: {mistake}"
    return _without_hints(mistake)


def _no_choice(file: str, options: Collection[str]) -> str:
    group, _, choice = file.rpartition("/")
    if not group:
        return f"there is no config {choice}: leave --config-name out, or name a file in the folder of --config-dir"
    meant = nearest(choice, options)
    plugin = ", or install the plugin that has it" if group.startswith("hydra/") else ""
    chosen = f"did you mean {meant}? " if meant else ""
    return f"{group}={choice}: {chosen}choose from {', '.join(options)}{plugin}"


def _missing(name: str, config: type) -> str:
    return f"{name} is missing: give {name}=… ({_meanings(config).get(name, 'it has no default')})"


def _wrong_type(name: str, error: OmegaConfBaseException, config: type) -> str:
    fields = {known: (kind, key) for known, kind, key in fields_of(config)}
    kind, key = fields.get(re.sub(r"\[\d+\]$", "", name), (None, None))  # of a list, where one element is wrong
    words = expected(kind)
    if key and key.limit:
        words = key.limit.words if "number" in key.limit.words else f"{words}, {key.limit.words}"
    given = "null" if "not Optional" in str(error) else error.value
    return f"{name}={given}: give {words}" + (f" ({key.text})" if key else "")


def _meanings(config: type) -> dict[str, str]:
    return {name: key.text for name, _, key in fields_of(config)}


def _without_hints(error: BaseException) -> str:
    """The message in one line, without what Hydra and OmegaConf add to it."""
    text = re.split(
        r"\n\s*(?:full_key: |object_type=|See https?://hydra|Config search path|Set the environment)", str(error)
    )
    return " ".join(text[0].split())
