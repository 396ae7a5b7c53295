"""A register takes another's place: nobody waits for it, and nothing of the old one stays."""

import asyncio
import gc
import sqlite3
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from protocols import dc09
from receiver import accounts, config, parts
from receiver.accounts import Account, Accounts
from receiver.errors import ConfigError, RegisterUnavailable
from receiver.managed import ManagedAccounts, ManagedStore
from receiver.parts import Parts, make_journal
from receiver.service import Service
from receiver.tables import Table
from receiver.telemetry import Telemetry
from receiver.threads import in_thread
from receiver.vault import Vault
from tests.wire.running import wait_until

HEAD = "account,name,key\n"
KEY, OTHER = "00112233445566778899AABBCCDDEEFF", "FFEEDDCCBBAA99887766554433221100"
MANY = 30_000


@pytest.fixture
def interpreter() -> Iterator[None]:
    """What a receiver sets for its process is put back."""
    threshold, interval = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)
    sys.setswitchinterval(interval)


def _settings(folder: Path, more: str = "") -> Path:
    file = folder / "receiver.toml"
    file.write_text(
        f'[receiver]\ndata_dir = "data"\n[accounts]\nfile = "accounts.csv"\n{more}'
        '[[listeners]]\nhost = "127.0.0.1"\nport = 0\n[http]\nport = 0\n[[outputs]]\nname = "e"\npath = "events"\n',
        "utf-8",
    )
    return file


def _register(folder: Path, text: str) -> Path:
    file = folder / "accounts.csv"
    file.write_text(HEAD + text, "utf-8")
    return file


def _load(folder: Path, text: str, before: Accounts | None = None) -> Accounts:
    return accounts.load(_register(folder, text), None, "refuse", {}, before)


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_accounts_that_did_not_change_stay_the_same_objects(tmp_path: Path) -> None:
    before = _load(tmp_path, f"A1,first,{KEY}\nb2,second,\nC3,third,{KEY}\nD4,fourth,\nE5,fifth,\n")
    after = _load(tmp_path, f"A1,first,{KEY}\nb2,second,\nC3,third,{OTHER}\nD4,other,\nF6,new,\n", before)
    same = {name: after.find(name) is before.find(name) for name in ("A1", "B2", "C3", "D4")}
    assert same == {"A1": True, "B2": True, "C3": False, "D4": False}
    assert after.key_for(after.find("C3")) == dc09.Key.parse(OTHER)
    assert (after.find("D4").name, after.find("E5").registered, after.find("F6").registered) == ("other", False, True)
    assert _load(tmp_path, "B2,second,\n", before).find("b2").account == "B2"  # it is spelled otherwise now


def test_an_account_that_stands_twice_is_a_mistake_also_where_it_stood_there_before(tmp_path: Path) -> None:
    before = _load(tmp_path, "A1,first,\n")
    with pytest.raises(ConfigError, match="line 3: account A1 stands twice"):
        _load(tmp_path, "A1,first,\nA1,first,\n", before)


def test_of_many_mistakes_the_first_are_told_and_the_rest_counted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _load(tmp_path, "no good,,\n" * 50)
    assert len(caught.value.mistakes) == 21
    assert caught.value.mistakes[-1].endswith(": 30 more mistakes")


def test_accounts_heard_that_are_not_in_a_register_as_they_were_spelled_are_found(tmp_path: Path) -> None:
    assert _load(tmp_path, "A1,,\nb2,,\n").missing(["A1", "B2", "b2", "C3"]) == ["B2", "C3"]
    store = ManagedStore(tmp_path, Vault("5" * 64))
    store.put([{"account": "A1"}, {"account": "b2"}, *({"account": f"9{n}"} for n in range(1500))], tmp_path)
    register = ManagedAccounts(store, None, None, 10)
    asked = ["A1", "B2", *(f"9{n}" for n in range(1600)), "b2"]
    assert register.missing(iter(asked)) == ["B2", *(f"9{n}" for n in range(1500, 1600))]
    with closing(sqlite3.connect(tmp_path / "accounts.sqlite")) as db:
        db.execute("DROP TABLE accounts")
    with pytest.raises(RegisterUnavailable):
        register.missing(asked)
    register.close()


def test_a_managed_register_goes_on_where_its_file_is_the_same(tmp_path: Path) -> None:
    def opened() -> ManagedAccounts:
        return ManagedAccounts(ManagedStore(tmp_path, None), None, None, 10)

    first = opened()
    second = opened()
    (tmp_path / "accounts.sqlite").rename(tmp_path / "away")
    third, csv = opened(), Accounts({})
    assert [second.continues(one) for one in (second, first, third, csv)] == [True, True, False, False]
    assert [csv.continues(one) for one in (csv, Accounts({}), first)] == [True, False, False]
    for register in (first, second, third):
        register.close()


def test_a_register_that_nobody_asks_any_more_is_emptied_beside_the_loop() -> None:
    register = Accounts({f"{n:06X}": Account(f"{n:06X}") for n in range(MANY)})
    rows, user = register._rows, register
    register.close()
    del register
    assert user.find("000001").registered  # as long as somebody asks it, it is whole
    assert len(rows) == MANY
    del user
    wait_until(lambda: len(rows) == 0)
    assert list(rows) == []


def test_a_register_with_a_mistake_is_let_go_of_before_the_error_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[int] = []
    monkeypatch.setattr(Table, "empty", lambda table: emptied.append(len(table)))
    with pytest.raises(ConfigError):
        _load(tmp_path, "A1,,\nno good,,\n", Accounts({}))
    assert emptied == [1]


def test_a_managed_register_forgets_all_it_kept_beside_the_loop(tmp_path: Path) -> None:
    store = ManagedStore(tmp_path, Vault("5" * 64))
    names = [f"{n:06X}" for n in range(12_000)]
    store.put([{"account": name, "name": "old"} for name in names], tmp_path)
    register = ManagedAccounts(store, None, None, len(names))
    for name in names:
        register.find(name)
    kept, threads = register._kept, threading.active_count()
    other = store.another()
    other.put([{"account": name, "name": "new"} for name in names[:1001]], tmp_path)
    other.close()
    assert register.refresh() is None
    assert threading.active_count() == threads + 1
    assert register.find(names[0]).name == "new"
    assert register.spelled(names[0]) == names[0]
    wait_until(lambda: len(kept) == 0)
    register.close()


def test_panels_are_heard_while_many_senders_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config.load(_settings(tmp_path))
    names = [f"{n:06X}" for n in range(1000)]

    async def story() -> None:
        monkeypatch.setattr(parts, "_REST_SECONDS", 0)
        journal = make_journal(settings, Telemetry())
        built = Parts(settings, Accounts({}), journal, Telemetry())
        for name in [*names, "A1"]:
            built.pipeline.senders.registered.put(name, None)  # type: ignore[arg-type]
        found, left = Accounts({"A1": Account("A1")}), list[int]()
        async with asyncio.TaskGroup() as group:
            taking = group.create_task(built.take_accounts(found, names))
            while not taking.done():
                await asyncio.sleep(0)
                left.append(len(built.pipeline.senders))
                assert built.pipeline.accounts is built.accounts is found  # judged by the new one from the first step on
        assert max(before - after for before, after in pairwise(left)) <= 100
        assert list(built.pipeline.senders.registered) == ["A1"]
        await built.close()
        await journal.close()

    asyncio.run(story())


@pytest.mark.usefixtures("interpreter")
def test_nothing_of_a_register_stays_when_another_was_read(tmp_path: Path) -> None:
    file = _settings(tmp_path)
    _register(tmp_path, "A1,first,\nB2,second,\n")

    async def story() -> None:
        service = Service(config.load(file), file)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(service.run())
            await _until(lambda: service.ready)
            for text, wanted in (("A1,first,\nC3,third,\n", 2), ("A1,first,\n", 1)):
                before = weakref.ref(service._parts.accounts)
                _register(tmp_path, text)
                service._hangup.set()
                await _until(lambda wanted=wanted: len(service._parts.accounts) == wanted)  # type: ignore[misc]
                await _until(lambda before=before: before() is None)  # type: ignore[misc]
            service.stop()
            await running

    asyncio.run(story())


def test_work_in_a_thread_ends_in_its_result_or_its_error_or_is_given_up() -> None:
    held = threading.Event()

    def fail() -> None:
        raise ConfigError("a mistake")

    async def story() -> None:
        assert await in_thread(lambda: 7) == 7
        with pytest.raises(ConfigError, match="a mistake"):
            await in_thread(fail)
        waiting = asyncio.ensure_future(in_thread(held.wait))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(story())  # which does not wait for the thread
    held.set()
