"""Reading settings: tables of TOML and the environment into dataclasses, every mistake collected on the way."""

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from protocols import contact_id, sia_dcs
from receiver.config.automation import links_told_alike
from receiver.config.outputs import OUTPUT_TYPES
from receiver.config.places import ports_taken_twice
from receiver.config.settings import (
    RULES,
    SECTIONS,
    JsonlSettings,
    ListenerSettings,
    OutputSettings,
    ReceiverSettings,
    Secret,
    Settings,
)
from receiver.dialects import parse_of_listener
from receiver.errors import ConfigError

ENV_PREFIX = "DC09_"


def load(file: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from a TOML file (None: defaults alone) and the environment.

    Raises:
        ConfigError: with every mistake found.
    """
    settings, mistakes = read(file, environment)
    if mistakes:
        raise ConfigError(*mistakes)
    return settings


def read(file: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[Settings, list[str]]:
    """Return the settings and every mistake in them; for a wrong value its default stands in.

    Raises:
        ConfigError: the file cannot be read, or is no TOML.
    """
    table = _read_toml(file) if file else {}
    reader = _Reader(file.parent if file else Path(), environment)
    return reader.settings(table, () if file else (JsonlSettings(),)), reader.mistakes


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {file}") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file} is no valid TOML: it is not in UTF-8 (at line {line})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is no valid TOML: {error}") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{file} is no valid TOML: a number in it is too long, or lists stand too deep in lists") from None


class _Reader:
    """Turns tables into settings and collects every mistake on the way."""

    def __init__(self, base: Path, environment: Mapping[str, str]) -> None:
        self._base = base
        self._environment = environment
        self.mistakes: list[str] = []

    def settings(self, table: dict[str, Any], outputs: tuple[OutputSettings, ...]) -> Settings:
        """Return the settings; ``outputs`` where the table and the environment have none."""
        self._overlay_environment(table)
        known = {*SECTIONS, "listeners", "outputs"}
        for key in table.keys() - known:
            self._wrong(f"unknown section or key {key!r}; known are {', '.join(sorted(known))}")
        values: dict[str, Any] = {
            name: self._section(cls, table.get(name, {}), f"[{name}]") for name, cls in SECTIONS.items()
        }
        values["listeners"] = self._list(table, "listeners", lambda _: ListenerSettings, (ListenerSettings(),))
        values["outputs"] = self._list(table, "outputs", self._output_type, outputs)
        self._check_whole(values)
        return Settings(**values)

    def _wrong(self, mistake: str) -> None:
        self.mistakes.append(mistake)

    def _overlay_environment(self, table: dict[str, Any]) -> None:
        """Lay ``DC09_SECTION_KEY`` and ``DC09_LISTENERS_0_KEY`` over what the file says."""
        for name, value in sorted(self._environment.items()):
            if not name.startswith(ENV_PREFIX):
                continue
            section, _, rest = name.removeprefix(ENV_PREFIX).lower().partition("_")
            number, _, key = rest.partition("_")
            if section in ("listeners", "outputs") and re.fullmatch("[0-9]{1,2}", number) and key:
                entries = table.setdefault(section, [])
                if isinstance(entries, list) and int(number) <= len(entries):
                    entries[int(number) : int(number)] = [] if int(number) < len(entries) else [{}]
                    entries[int(number)][key] = _FromEnvironment(name, value)
                    continue
            elif section in SECTIONS and rest and isinstance(table.setdefault(section, {}), dict):
                table[section][rest] = _FromEnvironment(name, value)
                continue
            self._wrong(
                f"the environment variable {name} names no setting; "
                f"the form is {ENV_PREFIX}HTTP_PORT or {ENV_PREFIX}LISTENERS_0_PORT"
            )

    def _output_type(self, table: dict[str, Any]) -> type[OutputSettings]:
        return OUTPUT_TYPES.get(str(table.get("type", "jsonl")), OutputSettings)

    def _list(self, table: dict[str, Any], name: str, choose: Any, default: tuple[Any, ...]) -> tuple[Any, ...]:
        entries = table.get(name)
        if entries is None:
            return default
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            self._wrong(f"{name} must be written as [[{name}]] tables")
            return default
        return tuple(self._section(choose(entry), entry, f"[[{name}]] {n}") for n, entry in enumerate(entries, 1))

    def _section(self, cls: type[Any], table: Any, where: str) -> Any:
        if not isinstance(table, dict):
            self._wrong(f"{where} must be a table")
            return cls()
        table = dict(table)
        if cls is ReceiverSettings:
            table.setdefault("data_dir", "data")  # relative to the file, as a written one would be
        values = {f.name: self._value(f, table, f"{where} {f.name}") for f in fields(cls) if self._given(f, table)}
        for key, value in table.items():
            self._wrong(f"{where}{_source(value)} has no setting {key!r}; it has {', '.join(f.name for f in fields(cls))}")
        return cls(**values)

    @staticmethod
    def _given(item: "Field[Any]", table: dict[str, Any]) -> bool:
        return item.name in table or (item.type is Secret and f"{item.name}_file" in table)

    def _value(self, item: "Field[Any]", table: dict[str, Any], where: str) -> Any:
        """Take one setting out of the table and check it; on a mistake the default stands in."""
        default = None if item.default is MISSING else item.default
        if item.type is Secret:
            return self._secret(item.name, table, where)
        given = table.pop(item.name)
        where += _source(given)
        if isinstance(given, _FromEnvironment):
            given = given.convert(item.type)
        value = self._convert(item, given, where)
        if value is None:
            return default
        choices = item.metadata["choices"]
        for text in value if isinstance(value, tuple) else (value,):
            if choices and text not in choices:
                self._wrong(f"{where} is {text!r}; it can be {', '.join(c or 'empty' for c in choices)}")
                return default
        rule = item.metadata["check"]
        if rule and not _meets(value, rule):
            self._wrong(f"{where} is {value!r}; it must be {RULES[rule][1]}")
            return default
        return value

    def _convert(self, item: "Field[Any]", given: Any, where: str) -> Any:
        kind: Any = item.type
        if kind in (Path, Path | None) and isinstance(given, str) and given and "\0" not in given:
            return self._base / given
        if kind is float and isinstance(given, int | float) and not isinstance(given, bool):
            return float(given)
        if kind == tuple[str, ...] and isinstance(given, list) and all(isinstance(text, str) for text in given):
            return tuple(given)
        if kind in (int, str, bool) and type(given) is kind:
            return self._base_path(str(given)) if item.name == "path" and given else given
        names = {
            int: "a whole number",
            float: "a number",
            str: "a text",
            bool: "true or false",
            tuple[str, ...]: "a list of texts",
        }
        self._wrong(f"{where} is {given!r}; it must be {names.get(kind, 'a path')}")
        return None

    def _base_path(self, given: str) -> str:
        return given if given == "-" else str(self._base / given)

    def _secret(self, name: str, table: dict[str, Any], where: str) -> Secret:
        given, path = table.pop(name, None), table.pop(f"{name}_file", None)
        where += _source(given)
        if given is not None and path is not None:
            self._wrong(f"{where} and {name}_file are both given; leave one out")
            return Secret()
        try:
            if path is not None:
                return Secret(_read_secret(self._base / str(path)))
            return resolve_secret(str(given), self._environment)
        except ConfigError as error:
            self._wrong(f"{where}{': ' if path is None else '_file '}{error}")
        return Secret()

    def _check_whole(self, values: dict[str, Any]) -> None:
        """Check what no single setting shows."""
        for kind in ("listeners", "outputs"):
            names = [entry.name for entry in values[kind]]
            for name in sorted({name for name in names if names.count(name) > 1}):
                self._wrong(f"two [[{kind}]] are named {name!r}; each needs a name of its own")
        if not values["listeners"]:
            self._wrong("there is no [[listeners]]: the receiver would hear nobody")
        self._check_listeners(values["listeners"])
        for number, output in enumerate(values["outputs"], 1):
            if output.type not in OUTPUT_TYPES:
                self._wrong(f"[[outputs]] {number} type is {output.type!r}; it can be {', '.join(OUTPUT_TYPES)}")
            for mistake in (*output.mistakes(), *_shut_filters(output)):
                self._wrong(f"[[outputs]] {number} {mistake}")
        if not self.mistakes:
            self.mistakes += ports_taken_twice(values["listeners"], values["outputs"], values["http"])
            self.mistakes += links_told_alike(values["outputs"])

    def _check_listeners(self, listeners: Sequence[ListenerSettings]) -> None:
        for number, listener in enumerate(listeners, 1):
            for name, check in (("dialect", parse_of_listener), ("time_zone", _check_zone)):
                try:
                    check(getattr(listener, name))
                except ConfigError as error:
                    self._wrong(f"[[listeners]] {number} {name} is {getattr(listener, name)!r}; {error}")


def _shut_filters(output: OutputSettings) -> list[str]:
    """Return what is wrong with a filter that would let nothing through, and nobody would know."""
    wrong = [
        f"accounts holds {account!r}, which no panel can have; an account has 1 to 16 letters and digits"
        for account in output.accounts
        if re.fullmatch(r"[0-9A-Za-z]{1,16}", account) is None
    ]
    if not output.lanes and not output.troubles and output.paths != "send":
        wrong.append("lanes is empty and troubles is false, so nothing would be handed over; leave lanes out for both lanes")
    known = {code.category for code in contact_id.CODES.values()} | {code.category for code in sia_dcs.CODES.values()}
    unknown = [category for category in output.categories if category not in known]
    if unknown:
        wrong.append(f"categories holds {unknown[0]!r}, which no code has; there are {', '.join(sorted(known))}")
    return wrong


@dataclass(frozen=True, slots=True)
class _FromEnvironment:
    """A value from the environment: text, whatever the setting's type is, and the variable's name."""

    name: str
    text: str

    def convert(self, kind: Any) -> Any:
        """Return what TOML would have given, or the text where it does not fit."""
        if kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}.get(self.text.lower(), self.text)
        if kind is int and re.fullmatch("-?[0-9]{1,15}", self.text):
            return int(self.text)
        if kind is float and re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,9})?", self.text):
            return float(self.text)
        if kind == tuple[str, ...]:
            return [part.strip() for part in self.text.split(",") if part.strip()]
        return self.text

    def __str__(self) -> str:
        return self.text


def _source(given: Any) -> str:
    """Say where a value was found, if that is not the file."""
    return f" (environment variable {given.name})" if isinstance(given, _FromEnvironment) else ""


def resolve_secret(text: str, environment: Mapping[str, str] = os.environ) -> Secret:
    """Return the secret that ``text`` is or, written as ``${NAME}``, that the environment variable holds.

    Raises:
        ConfigError: the variable is not set, or is empty; or it is only a part of the text.
    """
    match = re.search(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", text)
    if match is None:
        return Secret(text)
    if match[0] != text:
        raise ConfigError(f"{match[0]} is only a part of it; let the variable, or a file, hold all of it")
    if not environment.get(match[1]):
        raise ConfigError(f"the environment variable {match[1]} is {'empty' if match[1] in environment else 'not set'}")
    return Secret(environment[match[1]])


def _read_secret(file: Path) -> str:
    """Return what stands in a secret's file. An empty one, as a deployment that failed leaves it, is no secret at all.

    Raises:
        ConfigError: it cannot be read, or nothing stands in it; as the rest of a sentence.
    """
    try:
        text = file.read_text("utf-8-sig").strip()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}: {file}") from None
    except ValueError:
        raise ConfigError(f"is not UTF-8 text: {file}" if "\0" not in str(file) else f"is no path: {str(file)!r}") from None
    if not text:
        raise ConfigError(f"is empty: {file}")
    return text


def _check_zone(text: str) -> None:
    """Refuse what names no time zone; empty is none.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        if text:
            ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise ConfigError("it must be a name such as Europe/Amsterdam, or empty") from None


def _meets(value: Any, rule: str) -> bool:
    condition = RULES[rule][0]
    if isinstance(condition, tuple):
        return bool(condition[0] <= value <= condition[1])
    return condition.fullmatch(value) is not None
