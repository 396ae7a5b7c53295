"""The reference says what the code does: every setting, metric, command, reason and test it names is there."""

import asyncio
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest

from protocols import dc09
from protocols.errors import ProtocolError
from receiver import config, events
from receiver.accounts import COLUMNS, Accounts
from receiver.cli import main
from receiver.dialects import DIALECTS
from receiver.errors import PolicyError
from receiver.journal import Kind, Origin, Row, Stored
from receiver.service import Service
from receiver.troubles import REASONS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def _page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def test_every_setting_is_in_the_reference_with_its_default() -> None:
    page = _page("reference/settings.md")
    sections = {f"[{name}]": cls for name, cls in config.SECTIONS.items()} | {"[[listeners]]": config.ListenerSettings}
    every: list[tuple[str, type[Any]]] = [*sections.items(), *config.OUTPUT_TYPES.items()]
    every.append(("[[outputs]]", config.OutputSettings))
    for name, cls in every:
        heading = f"`{name}`" if name.startswith("[") else f'`type = "{name}"`'
        assert heading in page
        rest = page.split(heading, 1)[1]
        for item in fields(cls):
            if name in config.OUTPUT_TYPES and item.name in {common.name for common in fields(config.OutputSettings)}:
                continue
            row = next((line for line in rest.splitlines() if line.startswith(f"| `{item.name}` |")), "")
            assert item.metadata["help"] in row, (name, item.name)
            if isinstance(item.default, int | float) and not isinstance(item.default, bool):
                assert f"`{item.default:g}`" in row or f"`{item.default}`" in row, (name, item.name)


def test_every_column_of_the_register_is_in_the_reference() -> None:
    page = _page("reference/settings.md")
    assert all(f"`{column}`" in page for column in (*COLUMNS, "key_file"))
    assert all(f"`{dialect}`" in page for dialect in DIALECTS if dialect)


def test_every_command_and_option_is_in_the_reference() -> None:
    page = _page("reference/commands.md")

    def walk(command: click.Command, name: str) -> None:
        if isinstance(command, click.Group):
            for sub, found in command.commands.items():
                walk(found, f"{name} {sub}".strip())
            return
        assert name.split(maxsplit=1)[-1] in page, name
        for option in command.params:
            if isinstance(option, click.Option) and option.name not in ("config_file", "help"):
                assert option.opts[0] in page, (name, option.opts)

    walk(main, "")


def test_every_metric_is_in_the_reference(tmp_path: Path) -> None:
    page = _page("reference/metrics.md")

    async def scrape() -> str:
        settings = config.Settings(
            receiver=config.ReceiverSettings(data_dir=tmp_path / "data"), http=config.HttpSettings(port=0),
            listeners=(config.ListenerSettings(host="127.0.0.1", port=0),), outputs=(),
        )  # fmt: skip
        service = Service(settings, None)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(service.run())
            while not service.ready:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            told = service.scrape().decode()
            service.stop()
            await running
        return told

    names = set(re.findall(r"^# TYPE (\S+)", asyncio.run(scrape()), re.MULTILINE))
    documented = set(re.findall(r"^\| `(receiver_[a-z_]+)` \|", page, re.MULTILINE))
    assert names == documented


def _leaves(cls: type[Exception]) -> set[type[Exception]]:
    return {leaf for sub in cls.__subclasses__() for leaf in _leaves(sub)} or {cls}


def test_every_reason_is_in_the_reference() -> None:
    page = _page("reference/metrics.md")
    own = {"bad-key", "bad-timestamp", "unreadable", "does-not-fit", "no-equivalent"}  # never a frame's reason
    for leaf in _leaves(ProtocolError) | _leaves(PolicyError):
        reason = getattr(leaf, "reason")  # noqa: B009
        assert reason in own or f"| `{reason}` |" in page, reason
    assert all(f"| `{reason}` |" in _page("reference/events.md") for reason in REASONS)


def test_every_test_named_in_the_docs_exists() -> None:
    sources: dict[str, str] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        sources[path.name] = sources.get(path.name, "") + path.read_text("utf-8")
    named = 0
    for page in DOCS.rglob("*.md"):
        for file, test in re.findall(r"`(test_[a-z_0-9]+\.py)::(test_[a-z_0-9]+)`", page.read_text("utf-8")):
            named += 1
            assert f"def {test}(" in sources[file], f"{page.name} names {file}::{test}"
    assert named > 30


def test_links_between_pages_lead_somewhere() -> None:
    for page in (*DOCS.rglob("*.md"), *ROOT.glob("*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"


ORIGIN = Origin("1", "2", "main", "tcp")
ADDRESS = dc09.Address(None, "0", "1234")
SIGNALS = [
    ("ADM-CID", b"#1234|1121 01 005", (("S", b"x"), ("V", b"a,b"), ("X", b"004E54.0"), ("Q", b"?"))),
    ("ADM-CID", b"#99|1998 01 005", ()),
    ("ADM-CID", b"what is this", ()),
    ("SIA-DCS", b"#1234|Oti10:00/id3/HA4^till^", ()),
    ("FBI-SF", b"\x81", ()),
]


def _stored(kind: Kind, raw: bytes, body: bytes | None) -> Stored:
    row = Row(
        kind.value, 0, 1, 1, 1_790_000_000_000_000, 1_790_000_000, b"i" * 16, 0, 1, "127.0.0.1:1", "unregistered", raw, body
    )
    return Stored(17, row, ORIGIN)


def _schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_page(f"reference/{name}.schema.json"))
    jsonschema.Draft202012Validator.check_schema(found)
    return found


@pytest.mark.parametrize(("token", "data", "extended"), SIGNALS)
def test_a_signal_fits_its_schema(token: str, data: bytes, extended: tuple[tuple[str, bytes], ...]) -> None:
    raw = dc09.encode(token, "0001", ADDRESS, data, extended)
    event = events.render(_stored(Kind.SIGNAL, raw, None), Accounts({})).cloud_event
    jsonschema.validate(event, _schema("signal"))


def test_path_and_trouble_events_fit_their_schemas() -> None:
    path = {
        "account": "1",
        "listener": "main",
        "state": "lost",
        "last_seen": "2026-11-23T10:01:02.000000Z",
        "interval_seconds": 60,
    }
    for more in ({}, {"role": "backup"}):
        told = events.render(_stored(Kind.PATH, b"", json.dumps(path | more).encode()), Accounts({})).cloud_event
        jsonschema.validate(told, _schema("path"))
    trouble = {
        "reason": "undecryptable", "text": "t", "count": 3, "since": "2026-11-23T10:01:02.000000Z", "account": None,
        "listener": "main", "peer": None, "raw": "0A", "output": None,
    }  # fmt: skip
    for several in ({}, {"accounts": ["1234", "1235"]}):
        told = events.render(_stored(Kind.TROUBLE, b"", json.dumps(trouble | several).encode()), Accounts({})).cloud_event
        jsonschema.validate(told, _schema("trouble"))
    damaged = events.render_or_tell(_stored(Kind.SIGNAL, b"\nnot a frame", None), Accounts({})).cloud_event
    assert "position 17 cannot be read" in damaged["data"]["text"]
    jsonschema.validate(damaged, _schema("trouble"))
    assert _schema("trouble")["properties"]["data"]["properties"]["reason"]["enum"] == sorted(REASONS)
