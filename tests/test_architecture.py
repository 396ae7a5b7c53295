"""Imports point up one list; each outside package has one home; modules and functions stay small."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = [
    "protocols.errors",
    "protocols.dc09 protocols.contact_id protocols.sia_dcs",
    "protocols.automation",
    "receiver.ownership",
    "receiver.errors receiver.clock receiver.process receiver.statefile receiver.threads",
    "receiver.intervals receiver.dialects receiver.path_values receiver.tables",
    "receiver.config receiver.path_columns",
    "receiver.accounts receiver.journal receiver.clockwatch receiver.vault receiver.sightings",
    "receiver.account_file receiver.policy receiver.telemetry receiver.defaults receiver.payloads receiver.replies "
    "receiver.paths receiver.troubles",
    "receiver.events receiver.senders receiver.journal_watch receiver.arrivals receiver.on_test receiver.rotation "
    "receiver.storms receiver.never_seen receiver.path_file receiver.path_recall",
    "receiver.register receiver.aside",
    "receiver.pipeline receiver.outputs receiver.explain receiver.panel receiver.managed receiver.watch receiver.path_watch",
    "receiver.account_desk",
    "receiver.listeners",
    "receiver.succession receiver.gauges",
    "receiver.parts",
    "receiver.service",
    "receiver.cli receiver.demo",
    "receiver.__main__",
]
LEVEL = {name: level for level, line in enumerate(LAYERS) for name in line.split()}
HOMES = {
    "crcmod": {"protocols/dc09/crc.py"},
    "cryptography": {"protocols/dc09/cipher.py", "receiver/vault.py"},
    "prometheus_client": {"receiver/telemetry.py"},
    "click": {
        f"receiver/cli/{name}.py" for name in ("__init__", "accounts", "journal", "on_test", "options", "outputs", "watch")
    },
    "aiohttp": {"receiver/outputs/webhook.py", "receiver/listeners/monitor.py"},
    "msgspec": {  # what a message is on its way through, and how the journal packs it
        "protocols/dc09/framing.py",
        "protocols/dc09/message.py",
        "receiver/accounts.py",
        "receiver/arrivals.py",
        "receiver/defaults.py",
        "receiver/journal/groups.py",
        "receiver/journal/records.py",
        "receiver/payloads.py",
        "receiver/pipeline.py",
        "receiver/senders.py",
    },
    "orjson": {"receiver/events.py", "receiver/outputs/kafka.py"},
    "nats": {"receiver/outputs/nats.py"},
    "redis": {"receiver/outputs/redis.py"},
    "aio_pika": {"receiver/outputs/amqp.py"},
    "aiormq": {"receiver/outputs/amqp.py"},  # what aio-pika is made of
    "pamqp": {"receiver/outputs/amqp.py"},  # and what that is made of
    "aiomqtt": {"receiver/outputs/mqtt.py"},
    "paho": {"receiver/outputs/mqtt.py"},
    "asyncpg": {"receiver/outputs/postgresql.py"},
    "confluent_kafka": {"receiver/outputs/kafka.py"},
    "uvloop": {"receiver/cli/__init__.py"},
    "sqlite3": {
        f"receiver/journal/{name}.py"
        for name in ("cursor", "deliveries", "jobs", "opening", "reader", "salvage", "store", "writer")
    }
    | {f"receiver/managed/{name}.py" for name in ("lookup", "reading", "store")},
}
MODULES = sorted(path for package in ("protocols", "receiver") for path in (ROOT / package).rglob("*.py"))


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _part(module: str) -> str | None:
    """Return the entry of the list that a module belongs to."""
    return next((name for name in LEVEL if module == name or module.startswith(name + ".")), None)


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_imports_point_up_the_list(path: Path) -> None:
    own = _part(_name(path))
    if own is None:
        assert _name(path) in ("protocols", "receiver")
        return
    for imported in _imports(path):
        other = _part(imported)
        if other is not None and other != own:
            assert LEVEL[other] < LEVEL[own], f"{_name(path)} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_each_outside_package_has_one_home(path: Path) -> None:
    for imported in _imports(path):
        package = imported.split(".")[0]
        assert str(path.relative_to(ROOT)) in HOMES.get(package, {str(path.relative_to(ROOT))}), f"{path} imports {package}"


@pytest.mark.parametrize("path", [path for path in MODULES if _name(path).startswith("protocols")], ids=_name)
def test_the_wire_formats_know_no_sockets_clock_or_logs(path: Path) -> None:
    assert not {name.split(".")[0] for name in _imports(path)} & {
        "socket",
        "asyncio",
        "time",
        "logging",
        "receiver",
        "sqlite3",
    }


def test_one_module_reads_the_clock() -> None:
    reads = re.compile(r"time\.time\(|time_ns\(|datetime\.now\(|utcnow\(|time\.monotonic")
    assert [_name(path) for path in MODULES if reads.search(path.read_text("utf-8"))] == ["receiver.clock"]


def test_one_module_says_which_number_a_signal_has() -> None:
    says = re.compile(r"Kind\.SIGNAL\.value|\bentry\.kind [!=]= 0")
    assert [_name(path) for path in MODULES if says.search(path.read_text("utf-8"))] == ["receiver.journal.records"]


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_modules_and_functions_stay_small(path: Path) -> None:
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 40, f"{_name(path)}.{node.name}"
