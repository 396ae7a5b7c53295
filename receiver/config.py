"""Settings: one TOML file, read once into frozen dataclasses with every default visible.

Unknown keys are errors, every mistake is collected before anything is reported, relative paths are relative to the file.
Each setting can also be given as an environment variable: ``[http] port`` is ``DC09_HTTP_PORT``, the port of the first
listener is ``DC09_LISTENERS_0_PORT``. A secret may be written as ``${NAME}``, or as ``…_file = "path"``.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from receiver.errors import ConfigError

ENV_PREFIX = "DC09_"


@dataclass(frozen=True, slots=True)
class Secret:
    """A text that does not print itself; empty is none."""

    text: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.text)


def setting(default: Any, help_text: str, check: str = "", choices: tuple[str, ...] = ()) -> Any:
    """Declare one setting: its default, what it is for, and a rule its value must meet (``check`` is a named rule)."""
    return field(default=default, metadata={"help": help_text, "check": check, "choices": choices})


RULES: dict[str, tuple[re.Pattern[str] | tuple[float, float], str]] = {
    "hex6": (re.compile(r"[0-9A-Fa-f]{1,6}"), "1 to 6 hex digits"),
    "name": (re.compile(r"[a-z0-9][a-z0-9_-]{0,31}"), "1 to 32 of a-z, 0-9, - and _, the first a letter or digit"),
    "port": ((0, 65535), "a port, 0 to 65535 (0 takes a free one)"),
    "positive": ((1, 2**31), "1 or more"),
    "seconds": ((0.1, 10**8), "a number of seconds above 0"),
    "count": ((0, 2**40), "0 or more"),
    "priority": ((1, 9), "a priority, 1 (act now) to 9 (log only)"),
}


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """``[receiver]``: who we are and where we keep things."""

    number: str = setting("1", "our receiver number; stands in every event's source", "hex6")
    data_dir: Path = setting(Path("data"), "folder of the journal and of all state; made with mode 0700 if absent")


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """``[[listeners]]``: one port that panels report to."""

    name: str = setting("main", "name in logs and events; must differ between listeners", "name")
    transport: str = setting("both", "what to listen on", choices=("tcp", "udp", "both"))
    host: str = setting("0.0.0.0", "address to bind; `::` takes IPv6 and IPv4")  # noqa: S104 - panels come from outside
    port: int = setting(12128, "port for TCP and UDP; DC-09 has no fixed one, panels ask for it", "port")
    line: str = setting("1", "our line number; stands in every event's source", "hex6")
    max_connections: int = setting(20000, "TCP connections at a time; further ones are closed at once", "positive")
    max_connections_per_source: int = setting(
        2000, "TCP connections from one address; many panels may stand behind one", "positive"
    )
    first_frame_timeout_seconds: float = setting(30.0, "a stranger who sends no frame for so long is closed", "seconds")
    frame_timeout_seconds: float = setting(10.0, "a frame begun must end within this, or the connection closes", "seconds")
    idle_timeout_seconds: float = setting(
        3600.0, "silence after the first frame; longer than any supervision interval", "seconds"
    )
    close_after_ack: bool = setting(False, "close once every frame is answered; panels disagree on who closes")
    max_frames_in_hand: int = setting(
        2000, "UDP frames being stored at a time; more are dropped and counted, the panel repeats them", "positive"
    )
    receive_buffer_bytes: int = setting(
        8388608, "UDP socket buffer asked of the kernel (SO_RCVBUF); what it grants is logged at start", "positive"
    )


@dataclass(frozen=True, slots=True)
class AccountsSettings:
    """``[accounts]``: who may report."""

    file: Path | None = setting(None, "CSV register of accounts; read again on SIGHUP")
    unknown: str = setting(
        "",
        "an account not in the register: `refuse` is silence and a trouble event, `accept` stores, acknowledges and "
        "flags; empty means accept while the register is empty, else refuse",
        choices=("", "refuse", "accept"),
    )
    default_key: Secret = setting(Secret(), "key for encrypted messages of accounts without one of their own")


@dataclass(frozen=True, slots=True)
class ClockSettings:
    """``[clock]``: the window for time stamps of encrypted messages."""

    behind_seconds: int = setting(40, "an encrypted message may be this old", "count")
    ahead_seconds: int = setting(20, "or this far ahead of our clock; outside, NAK with our time", "count")


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """``[journal]``: where signals are kept."""

    repeat_window_seconds: int = setting(600, "how long a repeat is recognised, also after a restart", "count")
    repeat_max: int = setting(
        2000000, "messages remembered for that, about 200 bytes of memory each; above, the oldest are forgotten", "positive"
    )
    max_backlog: int = setting(
        1000000, "undelivered signals of the slowest output; above, ACKs are withheld so that panels keep theirs", "positive"
    )
    max_waiting: int = setting(20000, "signals waiting for the disk; above, ACKs are withheld", "positive")
    retention_days: float = setting(90.0, "delivered events older than this are deleted", "seconds")
    refusals_kept: int = setting(10000, "refused frames kept for `journal show --refused`; older ones are deleted", "count")


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """``[http]``: metrics and health, nothing else."""

    host: str = setting("127.0.0.1", "address to bind")
    port: int = setting(8080, "port of /metrics, /healthz and /readyz", "port")


@dataclass(frozen=True, slots=True)
class LogSettings:
    """``[log]``: what is written to standard error."""

    format: str = setting("text", "`text` for people, `json` for collectors", choices=("text", "json"))
    level: str = setting(
        "info",
        "`debug` logs every signal, `info` the urgent ones and every refusal",
        choices=("debug", "info", "warning", "error"),
    )


@dataclass(frozen=True, slots=True)
class OutputSettings:
    """``[[outputs]]``: one bus behind us; these settings are common to all types."""

    name: str = setting("events", "name in logs and metrics; the output's place in the journal hangs on it", "name")
    type: str = setting("jsonl", "what it is", choices=("jsonl", "webhook"))
    min_priority: int = setting(9, "least urgent signal handed over: 1 only the most urgent, 9 all", "priority")
    accounts: tuple[str, ...] = setting((), "only these accounts; empty means all")
    lanes: tuple[str, ...] = setting(("urgent", "normal"), "only these lanes", choices=("urgent", "normal"))
    troubles: bool = setting(True, "whether path and trouble events go there too")


@dataclass(frozen=True, slots=True)
class JsonlSettings(OutputSettings):
    """An output of type ``jsonl``: one CloudEvents JSON object a line."""

    path: str = setting("-", "file to append to, reopened on SIGHUP; `-` is standard output")


@dataclass(frozen=True, slots=True)
class WebhookSettings(OutputSettings):
    """An output of type ``webhook``: HTTP POST of CloudEvents."""

    url: str = setting("", "where to post; http or https")
    secret: Secret = setting(Secret(), "key of the HMAC-SHA256 in the header X-DC09-Signature; empty sends none")
    batch: int = setting(1, "events a request; above 1 the body is a CloudEvents JSON batch", "positive")
    timeout_seconds: float = setting(10.0, "a request without an answer for so long has failed", "seconds")


OUTPUT_TYPES: dict[str, type[OutputSettings]] = {"jsonl": JsonlSettings, "webhook": WebhookSettings}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the receiver is told."""

    receiver: ReceiverSettings = ReceiverSettings()
    listeners: tuple[ListenerSettings, ...] = (ListenerSettings(),)
    accounts: AccountsSettings = AccountsSettings()
    clock: ClockSettings = ClockSettings()
    journal: JournalSettings = JournalSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    outputs: tuple[OutputSettings, ...] = (JsonlSettings(),)


SECTIONS: dict[str, type[Any]] = {
    "receiver": ReceiverSettings, "accounts": AccountsSettings, "clock": ClockSettings, "journal": JournalSettings,
    "http": HttpSettings, "log": LogSettings,
}  # fmt: skip


def load(file: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from a TOML file (None: defaults alone) and the environment.

    Raises:
        ConfigError: with every mistake found.
    """
    table = _read_toml(file) if file else {}
    return _Reader(file.parent if file else Path(), environment).settings(table)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is no valid TOML: {error}") from None


class _Reader:
    """Turns tables into settings and collects every mistake on the way."""

    def __init__(self, base: Path, environment: Mapping[str, str]) -> None:
        self._base = base
        self._environment = environment
        self._mistakes: list[str] = []

    def settings(self, table: dict[str, Any]) -> Settings:
        self._overlay_environment(table)
        known = {*SECTIONS, "listeners", "outputs"}
        for key in table.keys() - known:
            self._wrong(f"unknown section or key {key!r}; known are {', '.join(sorted(known))}")
        values: dict[str, Any] = {
            name: self._section(cls, table.get(name, {}), f"[{name}]") for name, cls in SECTIONS.items()
        }
        values["listeners"] = self._list(table, "listeners", lambda _: ListenerSettings, (ListenerSettings(),))
        values["outputs"] = self._list(table, "outputs", self._output_type, () if table else (JsonlSettings(),))
        self._check_whole(values)
        if self._mistakes:
            raise ConfigError(*self._mistakes)
        return Settings(**values)

    def _wrong(self, mistake: str) -> None:
        self._mistakes.append(mistake)

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
                    entries[int(number)][key] = _FromEnvironment(value)
                    continue
            elif section in SECTIONS and rest and isinstance(table.setdefault(section, {}), dict):
                table[section][rest] = _FromEnvironment(value)
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
        for key in table:
            self._wrong(f"{where} has no setting {key!r}; it has {', '.join(f.name for f in fields(cls))}")
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
        if kind in (Path, Path | None) and isinstance(given, str) and given:
            return self._base / given
        if kind is float and isinstance(given, int | float) and not isinstance(given, bool):
            return float(given)
        if kind == tuple[str, ...] and isinstance(given, list) and all(isinstance(text, str) for text in given):
            return tuple(given)
        if kind in (int, str, bool) and type(given) is kind:
            return self._base_path(str(given)) if item.name == "path" else given
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
        if given is not None and path is not None:
            self._wrong(f"{where} and {name}_file are both given; leave one out")
        try:
            if path is not None:
                return Secret((self._base / str(path)).read_text("utf-8").strip())
            return resolve_secret(str(given), self._environment)
        except OSError as error:
            self._wrong(f"{where}_file cannot be read: {error.strerror}: {self._base / str(path)}")
        except UnicodeDecodeError:
            self._wrong(f"{where}_file is not UTF-8 text: {self._base / str(path)}")
        except ConfigError as error:
            self._wrong(f"{where}: {error}")
        return Secret()

    def _check_whole(self, values: dict[str, Any]) -> None:
        """Check what no single setting shows."""
        for kind in ("listeners", "outputs"):
            names = [entry.name for entry in values[kind]]
            for name in sorted({name for name in names if names.count(name) > 1}):
                self._wrong(f"two [[{kind}]] are named {name!r}; each needs a name of its own")
        if not values["listeners"]:
            self._wrong("there is no [[listeners]]: the receiver would hear nobody")
        for number, output in enumerate(values["outputs"], 1):
            if isinstance(output, WebhookSettings) and not re.fullmatch(r"https?://[^\s/]+\S*", output.url):
                self._wrong(f"[[outputs]] {number} url is {output.url!r}; a webhook needs an http or https address")


@dataclass(frozen=True, slots=True)
class _FromEnvironment:
    """A value from the environment: text, whatever the setting's type is."""

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


def resolve_secret(text: str, environment: Mapping[str, str] = os.environ) -> Secret:
    """Return the secret that ``text`` is or, written as ``${NAME}``, that the environment variable holds.

    Raises:
        ConfigError: the variable is not set.
    """
    match = re.fullmatch(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", text)
    if match is None:
        return Secret(text)
    if match[1] not in environment:
        raise ConfigError(f"the environment variable {match[1]} is not set")
    return Secret(environment[match[1]])


def _meets(value: Any, rule: str) -> bool:
    condition = RULES[rule][0]
    if isinstance(condition, tuple):
        return bool(condition[0] <= value <= condition[1])
    return condition.fullmatch(value) is not None
