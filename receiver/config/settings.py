"""Every setting with its default, what it is for and the rule its value must meet."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
    "host": (re.compile(r"[^\s\0]+"), "an address or a name, not empty"),
    "path": (re.compile(r"[^\0]+"), "the path of a file, or -"),
    "port": ((0, 65535), "a port, 0 to 65535 (0 takes a free one)"),
    "positive": ((1, 2**31), "1 or more"),
    "seconds": ((0.1, 10**8), "a number of seconds, 0.1 or more"),
    "days": ((0.01, 36500), "a number of days, 0.01 or more"),
    "count": ((0, 2**40), "0 or more"),
    "hex1": (re.compile(r"[0-9A-F]"), "one hex digit, capitals"),
    "hex2": (re.compile(r"[0-9A-F]{2}"), "two hex digits, capitals"),
    "hex6_or_empty": (re.compile(r"[0-9A-Fa-f]{0,6}"), "1 to 6 hex digits, or empty"),
    "surgard_line": (re.compile(r"[0-9A-F]|[0-9A-F]{3}|[0-9A-F]{7}"), "1, 3 or 7 hex digits, capitals"),
    "account4": (re.compile(r"[0-9A-F]{4}"), "four hex digits, capitals"),
    "account_or_empty": (re.compile(r"|[0-9A-Fa-f]{3,16}"), "3 to 16 hex digits, or empty"),
    "sia_digits": ((4, 16), "4 to 16"),
    "pause": ((0, 10**8), "a number of seconds, or 0"),
    "noise": ((4200, 2**31), "4200 or more: the longest frame has 4105 bytes"),
    "rate": ((0.1, 10**6), "0.1 or more"),
    "buffer": ((8192, 2**30), "8192 or more"),
    "keepalive": ((1, 32767), "a number of seconds, 1 to 32767"),
    "priority": ((1, 9), "a priority, 1 (act now) to 9 (log only)"),
    "facility": ((0, 23), "a facility, 0 to 23"),
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
    host: str = setting("0.0.0.0", "address to bind; `::` takes IPv6 and IPv4", "host")  # noqa: S104 - panels come from outside
    port: int = setting(12128, "port for TCP and UDP; DC-09 has no fixed one, panels ask for it", "port")
    line: str = setting("1", "our line number; stands in every event's source", "hex6")
    role: str = setting(
        "", "which way in of a panel with two this is: `primary`, `backup`, or empty where that is not known",
        choices=("", "primary", "backup"),
    )  # fmt: skip
    dialect: str = setting(
        "", "how panels of this listener deviate, for accounts without a dialect of their own: one or several joined by `+`"
    )
    time_zone: str = setting(
        "", "zone of panels that stamp local time, such as `Europe/Vilnius`, for accounts without one of their own"
    )
    max_connections: int = setting(
        20000,
        "TCP connections at a time, as far as the system grants open files; further ones are closed at once, or the oldest "
        "that never got an answer makes room",
        "positive",
    )
    max_connections_per_source: int = setting(
        2000, "TCP connections from one address (IPv6: /64); many panels may stand behind one", "positive"
    )
    first_frame_timeout_seconds: float = setting(30.0, "a stranger who sends no frame for so long is closed", "seconds")
    frame_timeout_seconds: float = setting(10.0, "a frame begun must end within this, or the connection closes", "seconds")
    idle_timeout_seconds: float = setting(
        3600.0, "silence after the first frame; longer than any supervision interval", "seconds"
    )
    crowded_out_after_seconds: float = setting(
        0.5, "so old must a connection without an answer be to make room for another when there are too many", "seconds"
    )
    unread_timeout_seconds: float = setting(30.0, "a panel that does not take our replies for so long is closed", "seconds")
    keepalive_seconds: int = setting(
        60, "the kernel asks a silent peer after so long whether it is there, and gives it up after twice that", "keepalive"
    )
    max_noise_bytes: int = setting(16384, "bytes in a row that are no frame; above, the connection closes", "noise")
    refused_frames_burst: int = setting(
        200,
        "refused frames from one address (IPv6: /64) that are logged, kept and told of at once; above, only counted",
        "positive",
    )
    refused_frames_per_second: float = setting(
        10.0, "how fast that budget comes back; a TCP connection on which a frame is refused above it is closed", "rate"
    )
    refused_sources: int = setting(
        4096, "addresses with a budget of their own, about 200 bytes of memory each; further ones share one", "positive"
    )
    refused_datagrams_per_second: int = setting(
        200, "refused UDP frames told of from all addresses together, which may be forged; above, only counted", "positive"
    )
    connection_buffer_bytes: int = setting(
        16384, "kernel memory asked for each direction of a TCP connection; bounds what a peer can make us hold", "buffer"
    )
    max_datagram_bytes: int = setting(16384, "a longer UDP datagram is damage and is not read", "positive")
    close_after_ack: bool = setting(False, "close once every frame is answered; panels disagree on who closes")
    max_frames_in_hand: int = setting(
        2000, "UDP frames being stored at a time; more are dropped and counted, the panel repeats them", "positive"
    )
    receive_buffer_bytes: int = setting(
        33554432,
        "UDP socket buffer asked of the kernel: room for 80,000 datagrams when a line returns; what it grants is logged",
        "positive",
    )


@dataclass(frozen=True, slots=True)
class AccountsSettings:
    """``[accounts]``: who may report."""

    file: Path | None = setting(None, "CSV register of accounts; read again on SIGHUP")
    store: str = setting(
        "csv", "`csv`: the register is `file`; `managed`: a database in data_dir, changed by `accounts` commands, with keys "
        "encrypted under `master_key`", choices=("csv", "managed"),
    )  # fmt: skip
    master_key: Secret = setting(
        Secret(), "encrypts the keys of the managed register: 64 hex digits; empty takes the systemd credential "
        "`dc09-master-key`, if there is one",
    )  # fmt: skip
    cached: int = setting(
        200000, "accounts of the managed register kept in memory, about 700 bytes each; others are read when their panel "
        "reports", "positive",
    )  # fmt: skip
    unknown: str = setting(
        "",
        "an account not in the register: `refuse` is silence and a trouble event, `accept` stores, acknowledges and "
        "flags; empty means accept while the register is empty, else refuse",
        choices=("", "refuse", "accept"),
    )
    default_key: Secret = setting(Secret(), "key for encrypted messages of accounts without one of their own")
    address_alive_seconds: int = setting(
        300,
        "a second address is told of while the first was heard within this, or within the account's supervision_seconds; "
        "0 for never, where panels change addresses by design",
        "count",
    )


@dataclass(frozen=True, slots=True)
class SupervisionSettings:
    """``[supervision]``: when a path that is silent is called lost, and how many losses are told."""

    margin_seconds: int = setting(
        0, "added to the interval of accounts without a margin of their own: for retries and slow networks", "count"
    )
    grace_seconds: int = setting(
        120,
        "after a start nobody is lost before this, unless heard since; and so much longer is a new account awaited",
        "count",
    )
    save_seconds: float = setting(
        60.0, "how often all paths are written down; a crash forgets so much, and losses are told that much later", "seconds"
    )
    storm_hold_seconds: float = setting(
        60.0,
        "so long after the last 20 losses within 5 s are single path events held back, for paths that come back",
        "seconds",
    )
    storm_events_per_second: int = setting(
        20, "path events told in a second for those that did not come back after a storm", "positive"
    )


@dataclass(frozen=True, slots=True)
class ClockSettings:
    """``[clock]``: the window for time stamps of encrypted messages."""

    behind_seconds: int = setting(40, "an encrypted message may be this old", "count")
    ahead_seconds: int = setting(20, "or this far ahead of our clock; outside, NAK with our time", "count")
    unsynchronised_seconds: int = setting(
        300, "trouble when the kernel says for so long that nothing keeps our clock right (no NTP); 0 never tells", "count"
    )


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
    retention_days: float = setting(90.0, "delivered events older than this are deleted", "days")
    refusals_kept: int = setting(10000, "refused frames kept for `journal show --refused`; older ones are deleted", "count")
    slow_sync_seconds: float = setting(
        1.0, "a commit that takes longer raises the trouble `journal-slow`; panels wait some seconds for an ACK", "seconds"
    )
    min_free_bytes: int = setting(
        268435456, "less room on the journal's disk raises the trouble `disk-low`, in time to act on it", "count"
    )


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """``[http]``: metrics and health, nothing else."""

    host: str = setting("127.0.0.1", "address to bind", "host")
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
    type: str = setting("jsonl", "what it is; each type has a page in docs/outputs")
    min_priority: int = setting(9, "least urgent signal handed over: 1 only the most urgent, 9 all", "priority")
    accounts: tuple[str, ...] = setting((), "only these accounts; empty means all")
    sites: tuple[str, ...] = setting((), "only accounts with these sites in the register; empty means all")
    categories: tuple[str, ...] = setting((), "only signals of these categories, such as `panic/duress`; empty means all")
    lanes: tuple[str, ...] = setting(("urgent", "normal"), "only these lanes", choices=("urgent", "normal"))
    troubles: bool = setting(True, "whether path and trouble events go there too")
    polls: str = setting(
        "send", "test codes that an account's dialect calls its heartbeat: `send` or `omit`; stored they are either way",
        choices=("send", "omit"),
    )  # fmt: skip
    paths: str = setting(
        "", "path events alone: `send` or `omit`; empty does as `troubles` says", choices=("", "send", "omit")
    )
    max_tries: int = setting(
        10, "tries, over about 20 s, before an event that the other side refuses becomes a dead letter", "positive"
    )
    max_dead_letters: int = setting(
        10000, "dead letters kept; above, whoever refuses that much refuses everything, and the output waits", "count"
    )

    def mistakes(self) -> list[str]:
        """Return what is wrong that no single setting shows, as the rest of a sentence."""
        return []


@dataclass(frozen=True, slots=True)
class JsonlSettings(OutputSettings):
    """An output of type ``jsonl``: one CloudEvents JSON object a line."""

    path: str = setting("-", "file to append to, reopened on SIGHUP; `-` is standard output", "path")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything the receiver is told."""

    receiver: ReceiverSettings = ReceiverSettings()
    listeners: tuple[ListenerSettings, ...] = (ListenerSettings(),)
    accounts: AccountsSettings = AccountsSettings()
    supervision: SupervisionSettings = SupervisionSettings()
    clock: ClockSettings = ClockSettings()
    journal: JournalSettings = JournalSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    outputs: tuple[OutputSettings, ...] = (JsonlSettings(),)


SECTIONS: dict[str, type[Any]] = {
    "receiver": ReceiverSettings, "accounts": AccountsSettings, "supervision": SupervisionSettings,
    "clock": ClockSettings, "journal": JournalSettings, "http": HttpSettings, "log": LogSettings,
}  # fmt: skip
