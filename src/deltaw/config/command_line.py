"""The command line as a user types it, made into the overrides that Hydra reads.

Hydra's grammar gives a meaning to = , ( [ { ~ and quotes within a value. Here a key that takes a text, as a path or a
template, gets its value quoted, so that no value needs quotes of its own.
"""

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, get_args, get_origin

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from deltaw.config.folder import CONF
from deltaw.config.keys import fields_of
from deltaw.config.mistakes import expected, unknown_key
from deltaw.errors import UserError, shorten

_PARTS = re.compile(r"(~|\+{0,2})([^=]*)(?:=(.*))?", re.DOTALL)  # sign, key, value
_FUNCTION = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag|int|float|str|bool|json_str|extend_list)\(")
_BETWEEN_VALUES = re.compile(r"(?<=[^\[\s,])[\s,]+(?=[^\]\s,])")  # of a list, not at its brackets
_OFTEN_SWEPT = ("model.path", "data.path")  # a comma in them is more often a sweep without -m than part of a name
_PATHS = "run"  # of analyze, which takes a path or a list of paths
_MAY_BE_EMPTY = "run.suffix"
_MAY_HAVE_SPACES = "data.text"  # of the keys that take a text or a list: its text is a field or a template
_REMOVABLE = ("logger", "experiment")  # groups that a run does without


def for_hydra(words: Sequence[str], config: type) -> list[str]:
    """The words of a command line, flags first, and each setting as Hydra reads it.

    Args:
        words: without the program's name.
        config: TrainConfig or AnalyzeConfig.

    Raises:
        UserError: a flag or a key is unknown, or a word is no setting, or a value cannot be read.
    """
    parser = get_args_parser()
    parser.error = _refuse  # type: ignore[method-assign]
    known, rest = parser.parse_known_args(words)
    flags, settings = list(words), [*known.overrides, *rest]
    for word in settings:
        if re.search("[\ud800-\udfff]", word):
            raise UserError(f"{word!a} is not in UTF-8: rename the file or the folder")
        if word.startswith("-"):
            raise UserError(f"{word} is no flag: {_without_dashes(word)}, or --help for all keys and flags")
        flags.remove(word)
    _check_once(flags)
    line = _Line(settings, config, known.multirun, Path(known.config_dir) if known.config_dir else None)
    return [*flags, *line.overrides()]


@dataclass(frozen=True)
class _Line:
    """The settings of one command line.

    Attributes:
        words: as they were typed.
        config: the schema.
        several: whether -m lets a key have several values.
        added: the folder of --config-dir.
    """

    words: list[str]
    config: type
    several: bool
    added: Path | None

    def overrides(self) -> Iterator[str]:
        """Each setting as Hydra reads it."""
        kinds = self._kinds()
        for number, word in enumerate(self.words):
            sign, key, value = _parts(word)
            if not re.match(r"\w", key) or (value is None and sign != "~"):
                raise UserError(self._no_setting(number))
            sign = self._check_key(sign, key, kinds)
            kind = kinds.get(key)
            if value is None:
                yield word
                continue
            override = f"{sign}{key}={_value(key, value, kind, self.several)}"
            self._check_readable(number, override, kind)
            yield override

    def _kinds(self) -> dict[str, Any]:
        return {name: kind for name, kind, _ in fields_of(self.config)}

    def _check_key(self, sign: str, key: str, kinds: dict[str, Any]) -> str:
        """Refuse a key that does not exist, and return the sign that Hydra needs before it."""
        name = key.partition("@")[0]
        if re.match(r"hydra[./]", name) or any(name.startswith(f"{section}.") for section in _open(kinds)):
            return sign
        groups = _groups(CONF)
        if name not in kinds and name not in groups:
            if self.added and (self.added / name).is_dir():
                return sign
            raise UserError(unknown_key(name, self.config, groups))
        if sign == "~" and name not in _REMOVABLE:
            raise UserError(f"~{key} would remove {key}, which a run needs: leave ~{key} out")
        return sign if sign == "~" else ""  # the key is there already: + adds nothing

    def _check_readable(self, number: int, override: str, kind: Any) -> None:
        """Refuse a setting that Hydra cannot read, and a sweep without -m."""
        word = self.words[number]
        _, key, value = _parts(word)
        parsed = _parse(override)
        if parsed is None:
            raise UserError(f"{word} cannot be read: {self._way_to_type(number, kind)}")
        if parsed.is_sweep_override() and not self.several:
            raise UserError(f"{word} gives several values: add -m to run a job for each of them")
        if key in _OFTEN_SWEPT and not self.several and "," in str(value) and not _exists(str(value)):
            typed, place = shorten(word), shorten(str(value))
            raise UserError(
                f"{typed}: there is no {place!r}; if these are several values, add -m to run a job for each"
            )

    def _way_to_type(self, number: int, kind: Any) -> str:
        if whole := self._cut_by_the_shell(number):
            return f"the shell cuts it at a space; type {whole}"
        if kind not in (None, Any):
            return f"give {expected(kind)}"
        sign, key, value = _parts(self.words[number])
        return f"put the value in quotes, as {shlex.quote(f'{sign}{key}={_in_quotes(str(value))}')}"

    def _cut_by_the_shell(self, number: int) -> str | None:
        """The setting to type, with the words behind it that belong to its value; None if no such words follow."""
        behind = list(takewhile(lambda word: "=" not in word and not word.startswith("~"), self.words[number + 1 :]))
        whole, key = " ".join([self.words[number], *behind]), _parts(self.words[number])[1]
        kind = self._kinds().get(key)
        if kind is not None and not _is(kind, str) and key != _MAY_HAVE_SPACES and "{" not in whole:
            whole = _BETWEEN_VALUES.sub(",", whole)
        return shlex.quote(whole) if behind else None

    def _no_setting(self, number: int) -> str:
        word, before = self.words[number], self.words[number - 1] if number else ""
        choices = [f"{group}={choice}" for group in _groups(CONF) for choice in _choices(group)]
        example = next((choice for choice in choices if choice.partition("=")[2] == word), None)
        if self.words[number + 1 : number + 2] == ["="]:
            example = "".join(self.words[number : number + 3])
        elif (key := re.match(r"([\w.]+)[:/]", word)) and key[1] in {name for name, _, _ in fields_of(self.config)}:
            example = re.sub("[:/]", "=", word, count=1)
        elif not example and "=" in before:
            return f"{word} is no setting: if it belongs to {before}, type {self._cut_by_the_shell(number - 1)}"
        return f"{word} is no setting: give key=value without spaces" + (f", as {example}" if example else "")


def _value(key: str, value: str, kind: Any, several: bool) -> str:
    """The value as Hydra reads it, by the kind of the key."""
    plain, is_text = value.strip(), _is(kind, str)
    is_function = _FUNCTION.match(plain) and (several or not is_text)
    is_quoted = re.fullmatch(r"""(['"]).*\1""", plain, re.DOTALL) and _parse(f"{key}={value}")
    if plain.lower() == "null" or is_function or is_quoted:
        return value
    if key == _PATHS and kind is Any:
        is_text = several or _exists(value) or not re.search(r"^\[|,", plain)
        if not is_text and not re.match(r"""\[.*['"]""", plain):
            paths = plain.removeprefix("[").removesuffix("]").split(",")
            return f"[{','.join(_in_quotes(_at_home(path.strip())) for path in paths)}]"
    if is_text:
        if not plain and key != _MAY_BE_EMPTY:
            raise UserError(f"{key}= is empty: leave it out, or give a value")
        return _text(key, value, several)
    if _is(kind, list) and plain and not plain.startswith("["):
        return ",".join(f"[{piece}]" for piece in plain.split(",")) if several else f"[{plain}]"
    if kind is Any and not several and not plain.startswith("["):  # a text, or a list of texts
        parsed = _parse(f"{key}={value}")
        if parsed is None:
            return _in_quotes(value)
        return f"[{plain}]" if parsed.is_sweep_override() else value
    return value


def _text(key: str, value: str, several: bool) -> str:
    """A text in quotes, unless Hydra reads it as it is; with several values, each in quotes."""
    parsed, at_home = _parse(f"{key}={value}"), _at_home(value)
    if not several:
        as_it_is = parsed and not parsed.is_sweep_override() and parsed.value() == at_home
        return value if as_it_is else _in_quotes(at_home)
    return value if parsed else ",".join(_in_quotes(_at_home(piece)) for piece in value.split(","))


def _exists(path: str) -> bool:
    return os.path.exists(_at_home(path))  # noqa: PTH110 (Path.exists raises an error where a name is too long)


def _at_home(path: str) -> str:
    """The path with the home folder in place of ~, which no shell expands behind data.path=."""
    return str(Path(path).expanduser()) if re.match("~(/|$)", path) else path


def _in_quotes(text: str) -> str:
    return QuotedString(text, Quote.double).with_quotes()


def _is(kind: Any, what: type) -> bool:
    """Whether a key takes this kind of value, or null."""
    kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
    return {get_origin(one) or one for one in kinds} - {type(None)} == {what}


def _open(kinds: dict[str, Any]) -> list[str]:
    """The sections whose keys the schema leaves open."""
    return [name for name, kind in kinds.items() if _is(kind, dict)]


def _parts(word: str) -> tuple[str, str, str | None]:
    parts = _PARTS.fullmatch(word)
    assert parts is not None  # the pattern fits every word
    return parts[1], parts[2].strip(), parts[3]


def _parse(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None


def _groups(folder: Path) -> list[str]:
    return sorted(group.name for group in folder.iterdir() if group.is_dir())


def _choices(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def _without_dashes(word: str) -> str:
    return f"settings have no dashes: give {word.lstrip('-')}" if "=" in word else "give key=value"


def _check_once(flags: list[str]) -> None:
    folders = [flag for flag in flags if re.fullmatch(r"--config-dir(=.*)?|-cd", flag)]
    if len(folders) > 1:
        raise UserError("--config-dir is given twice, and Hydra reads one folder: put your configs into one")


def _refuse(message: str) -> NoReturn:
    raise UserError(f"{message}; --help shows all keys and flags")
