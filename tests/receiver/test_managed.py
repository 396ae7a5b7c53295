"""The managed register: changed by commands while a receiver reads it, keys never in clear on the disk."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from protocols import dc09
from receiver import config, intervals
from receiver.accounts import OldKey
from receiver.cli import main
from receiver.errors import ConfigError, RegisterUnavailable
from receiver.managed import FILE_NAME, ManagedAccounts, ManagedStore, find_vault, load_accounts
from receiver.register import CsvStore, Store
from receiver.rotation import KeyWatch
from receiver.troubles import Trouble
from receiver.vault import Vault
from tests.receiver.test_pipeline import Desk, panel

SECRET, OTHER = "00112233445566778899AABBCCDDEEFF", "FFEEDDCCBBAA99887766554433221100"
MASTER, WRONG = "5" * 64, "6" * 64


def run(*args: str, feed: str | None = None) -> Result:
    return CliRunner().invoke(main, list(args), input=feed)


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    file = tmp_path / "receiver.toml"
    file.write_text('[accounts]\nstore = "managed"\nmaster_key_file = "master"\n', "utf-8")
    (tmp_path / "master").write_text(MASTER + "\n", "utf-8")
    return file


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ManagedStore]:
    made = ManagedStore(tmp_path, Vault(MASTER))
    yield made
    made.close()


def row(account: str, **cells: str) -> dict[str, str]:
    return {"account": account} | cells


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.glob(f"{FILE_NAME}*"))


def test_every_command_works_on_it_and_no_key_is_on_the_disk_or_the_screen(settings: Path, tmp_path: Path) -> None:
    def accounts(*args: str, feed: str | None = None) -> Result:
        done = run("accounts", args[0], "--config", str(settings), *args[1:], feed=feed)
        assert "Traceback" not in done.output
        assert SECRET not in done.output
        return done

    assert (
        accounts("add", "ab12", "--name", "First", "--key-stdin", "--supervision-seconds", "90", feed=SECRET).exit_code == 0
    )
    assert accounts("add", "AB12", "--site", "Main street").exit_code == 0
    more = tmp_path / "more.csv"
    (tmp_path / "k").write_text(OTHER, "utf-8")
    more.write_text("account,name,key_file\n5678,Second,k\n7777,,\nAB12,Renamed,\n", "utf-8")
    assert accounts("import", str(more)).exit_code == 0
    listed = accounts("list").stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["5678", "7777", "AB12"]
    assert ("AES-128" in listed[0], "no key" in listed[1], "every 90 s" in listed[2]) == (True, True, True)
    assert "Renamed" in listed[2]
    exported = accounts("export").stdout
    assert "AB12,Renamed,,90,,,Main street," in exported
    copy = tmp_path / "copy.csv"
    assert accounts("export", "--with-keys", str(copy)).exit_code == 0
    assert copy.read_text("utf-8").count(SECRET) == 1
    assert copy.read_text("utf-8").count(OTHER) == 1
    assert accounts("rotate-key", "AB12", "--key-stdin", feed=OTHER).exit_code == 0
    assert accounts("rotate-key", "AB12", "--key-stdin", feed=SECRET).exit_code == 2
    assert "nothing heard" in accounts("list", "--old-keys").stdout
    assert accounts("remove", "5678").exit_code == 0
    assert accounts("remove", "5678").exit_code == 2
    stored = on_disk(tmp_path / "data")
    for secret in (SECRET, OTHER, MASTER):
        assert secret.encode() not in stored
        assert bytes.fromhex(secret) not in stored
    assert (tmp_path / "data" / FILE_NAME).stat().st_mode & 0o777 == 0o600


def test_a_mistake_in_an_import_changes_nothing(store: ManagedStore) -> None:
    store.put([row("1")], Path())
    with pytest.raises(ConfigError, match="time_zone"):
        store.put([row("2"), row("3", time_zone="Mars")], Path())
    assert ([account.account for account in store.select()], store.count()) == (["1"], 1)


@pytest.mark.parametrize(
    ("master", "wanted"),
    [("", "[accounts] master_key_file is empty"), (WRONG, "is not the one"), ("short", "64 hex digits")],
)
def test_a_missing_or_wrong_master_key_is_one_clear_error(settings: Path, tmp_path: Path, master: str, wanted: str) -> None:
    assert run("accounts", "add", "1234", "--key-stdin", "--config", str(settings), feed=SECRET).exit_code == 0
    (tmp_path / "master").write_text(master, "utf-8")
    for command in (("accounts", "list"), ("serve",), ("accounts", "remove", "1234")):
        done = run(*command, "--config", str(settings))
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert wanted in done.stderr
        assert master not in done.stderr or not master
    done = run("check-config", str(settings))
    assert (done.exit_code, wanted in done.stderr) == (2, True)


def test_a_key_is_not_stored_without_a_master_key_and_accounts_without_keys_need_none(tmp_path: Path) -> None:
    store = ManagedStore(tmp_path, None)
    store.put([row("1", name="x")], Path())
    with pytest.raises(ConfigError, match="openssl rand"):
        store.put([row("2", key=SECRET)], Path())
    assert [account.name for account in store.select()] == ["x"]
    store.close()


def test_the_master_key_comes_from_the_settings_the_environment_or_systemd(tmp_path: Path) -> None:
    def found(environment: dict[str, str]) -> Vault | None:
        return find_vault(config.load(None, {k: v for k, v in environment.items() if k.startswith("DC09")}), environment)

    assert found({}) is None
    assert found({"CREDENTIALS_DIRECTORY": str(tmp_path)}) is None
    (tmp_path / "dc09-master-key").write_text(MASTER + "\n", "utf-8")
    sealed = Vault(MASTER).seal("x", "here")
    for environment in ({"CREDENTIALS_DIRECTORY": str(tmp_path)}, {"DC09_ACCOUNTS_MASTER_KEY": MASTER}):
        vault = found(environment)
        assert vault is not None
        assert (vault.unseal(sealed, "here"), MASTER in repr(vault)) == ("x", False)


def test_a_sealed_key_opens_for_no_other_account(store: ManagedStore, tmp_path: Path) -> None:
    store.put([row("1", key=SECRET), row("2", key=OTHER)], Path())
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("UPDATE accounts SET key = (SELECT key FROM accounts WHERE account = '1') WHERE account = '2'")
    db.close()
    register = ManagedAccounts(store, None, None, 10)
    assert register.key_for(register.find("1")) == dc09.Key.parse(SECRET)
    with pytest.raises(RegisterUnavailable, match="key of account 2"):
        register.find("2")


def _blobs(folder: Path) -> list[bytes]:
    """Return everything sealed that stands in the register."""
    db = sqlite3.connect(folder / FILE_NAME)
    found = db.execute("SELECT key FROM accounts WHERE key IS NOT NULL UNION ALL SELECT value FROM meta").fetchall()
    db.close()
    return [blob for (blob,) in found if isinstance(blob, bytes)]


def test_all_keys_are_sealed_anew_and_nothing_sealed_before_is_left_on_the_disk(store: ManagedStore, tmp_path: Path) -> None:
    store.put([row(f"{n}", key=SECRET if n % 2 else "") for n in range(2500)], Path())
    store.change("1", lambda before: (before or {}) | {"old_key": OTHER, "old_key_until": "2030-01-01T00:00:00Z"})
    before = _blobs(tmp_path)
    reader, writer = ManagedStore(tmp_path, Vault(MASTER)), ManagedStore(tmp_path, Vault(MASTER))
    assert store.reseal(WRONG) == 1250
    found = reader.find("1")  # opened before
    assert found is not None
    assert (found.key, found.old_key and found.old_key.key) == (dc09.Key.parse(SECRET), dc09.Key.parse(OTHER))
    writer.put([row("new", key=OTHER)], Path())
    assert writer.by_old_master
    with pytest.raises(ConfigError, match="still hold the old master key"):
        writer.finish()
    for old in (reader, writer):
        old.close()
    fresh = ManagedStore(tmp_path, Vault(WRONG))
    assert {cells["account"]: cells.get("key") for cells in fresh.rows(with_keys=True)}["new"] == OTHER
    between = [blob for blob in _blobs(tmp_path) if Vault(MASTER).opens(blob, "the next master key")]
    assert len(between) == 1
    store.close()
    assert fresh.finish()
    stored = on_disk(tmp_path)
    assert not [blob for blob in (*before, *between) if blob in stored]
    with pytest.raises(ConfigError, match="is not the one"):
        ManagedStore(tmp_path, Vault(MASTER))
    with pytest.raises(ConfigError, match="no change of the master key is under way"):
        fresh.finish()
    fresh.close()


def test_a_key_that_does_not_open_or_a_new_master_key_that_cannot_be_one_changes_nothing(
    store: ManagedStore, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="just set the new master key"):
        store.reseal(WRONG)
    store.put([row(f"{n}", key=SECRET) for n in range(1500)], Path())
    for text, sentence in ((MASTER, "is the one that"), ("short", "64 hex digits")):
        with pytest.raises(ConfigError, match=sentence):
            store.reseal(text)
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("UPDATE accounts SET key = x'00' WHERE account = '999'")  # the last one that is looked at
    db.close()
    before = _blobs(tmp_path)
    with pytest.raises(ConfigError, match="does not open key of account 999"):
        store.reseal(WRONG)
    assert _blobs(tmp_path) == before
    with closing(ManagedStore(tmp_path, Vault(MASTER))) as another:
        assert another.find("1") is not None


def test_a_change_of_the_master_key_that_is_killed_leaves_all_keys_under_one(tmp_path: Path, settings: Path) -> None:
    store = ManagedStore(tmp_path / "data", Vault(MASTER))
    store.put([row(f"{n}", key=SECRET) for n in range(5000)], Path())
    made = tmp_path / "made"
    command = [
        sys.executable,
        "-m",
        "receiver",
        "accounts",
        "rotate-master",
        "--config",
        str(settings),
        "--generate",
        str(made),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (made.exists() and _is_locked(tmp_path / "data" / FILE_NAME)):
        time.sleep(0.001)
    process.kill()
    process.wait()
    keys = {cells["key"] for cells in store.rows(with_keys=True)}  # with the old one, whichever way it ended
    assert keys == {SECRET}
    if not store.by_old_master:  # nothing was changed, and it can be done again
        assert store.reseal(WRONG) == 5000
    store.close()


def test_the_csv_register_has_no_master_key_and_a_made_one_is_not_left_behind(tmp_path: Path) -> None:
    settings = tmp_path / "csv.toml"
    settings.write_text('[accounts]\nfile = "a.csv"\n', "utf-8")
    made = tmp_path / "made"
    done = run("accounts", "rotate-master", "--config", str(settings), "--generate", str(made))
    assert (done.exit_code, "has no master key" in done.stderr, made.exists()) == (2, True, False)
    done = run("accounts", "rotate-master", "--config", str(settings))
    assert (done.exit_code, "needs one of --key-stdin" in done.stderr) == (2, True)


def test_supervised_accounts_are_read_page_by_page_and_one_without_its_zeros_is_found(
    store: ManagedStore, tmp_path: Path
) -> None:
    rows = [row(f"a{n:04d}", key=SECRET, supervision_seconds="SP4" if n % 2 else "") for n in range(4200)]
    store.put([*rows, row("12ab", dialect="padded")], Path())
    register = ManagedAccounts(ManagedStore(tmp_path, Vault(MASTER)), None, None, 10)
    found = dict(register.expectations())
    assert len(found) == 2100
    assert set(found.values()) == {intervals.parse("SP4")}
    assert "a0001" in found
    assert (register.find("0012AB").account, register.find("00A0001").registered) == ("12ab", False)
    register.close()


def test_the_receiver_finds_what_commands_change(store: ManagedStore, tmp_path: Path) -> None:
    register = ManagedAccounts(ManagedStore(tmp_path, Vault(MASTER)), None, None, 10)
    assert (len(register), register.accept_unknown, register.find("AB12").registered) == (0, True, False)
    store.put([row("ab12", key=SECRET, supervision_seconds="60"), row("2")], Path())
    assert register.refresh() == {"AB12", "2"}
    assert register.refresh() == ()
    assert (len(register), register.accept_unknown) == (2, False)
    assert register.find("ab12") is register.find("AB12")
    assert ([account.account for account in register.supervised()], register.missing(["AB12", "ab12", "2", "3"])) == (
        ["ab12"],
        ["AB12", "3"],
    )
    assert [account for account, _ in register.expectations()] == ["ab12"]
    store.change("AB12", lambda before: (before or {}) | {"old_key": OTHER, "old_key_until": "2030-01-01T00:00:00Z"})
    revision = register.revision
    assert register.find("AB12").old_key is None  # until the next look
    assert register.refresh() == {"AB12"}
    assert register.revision > revision
    assert register.find("AB12").old_key == OldKey(dc09.Key.parse(OTHER), 1_893_456_000)
    assert [account.account for account in register.rotating()] == ["ab12"]
    store.change("2", lambda _: None)
    assert register.refresh() == {"2"}
    assert (len(register), register.find("2").registered) == (1, False)
    store.put([row(f"9{n}") for n in range(1001)], Path())
    assert register.refresh() is None
    assert (len(register), len(list(register))) == (1002, 1002)
    register.close()


def test_a_register_goes_on_over_sighup_unless_its_file_or_settings_are_others(settings: Path, tmp_path: Path) -> None:
    chosen = config.load(settings)
    first = load_accounts(chosen)
    assert load_accounts(chosen, first) is first
    settings.write_text(settings.read_text("utf-8") + 'unknown = "accept"\n', "utf-8")
    second = load_accounts(config.load(settings), first)
    assert second is not first
    for end in ("-wal", "-shm", ""):
        (tmp_path / "data" / f"{FILE_NAME}{end}").rename(tmp_path / f"away{end}")
    ManagedStore(tmp_path / "data", None).close()
    third = load_accounts(config.load(settings), second)
    assert third is not second
    for register in (first, second, third):
        register.close()


def test_a_backup_that_is_brought_back_into_the_file_is_taken_and_what_it_undoes_is_forgotten(
    store: ManagedStore, tmp_path: Path
) -> None:
    store.put([row("1", key=SECRET), row("2")], Path())
    register = ManagedAccounts(ManagedStore(tmp_path, Vault(MASTER)), None, None, 10)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db, closing(sqlite3.connect(tmp_path / "copy")) as copy:
        db.backup(copy)
        store.change("1", lambda before: (before or {}) | {"key": OTHER})
        store.change("2", lambda _: None)
        store.put([row("3", supervision_seconds="60")], Path())
        assert register.refresh() == {"1", "2", "3"}
        assert (register.find("1").key, register.find("3").registered) == (dc09.Key.parse(OTHER), True)
        copy.backup(db)
    assert register.refresh() is None
    assert (register.find("1").key, register.find("2").registered) == (dc09.Key.parse(SECRET), True)
    assert not register.find("3").registered
    store.put([row("4")], Path())
    assert register.refresh() == {"4"}
    register.close()


@pytest.mark.parametrize(("taken", "put", "what", "then"), [
    (["-wal", "-shm", ""], True, "send SIGHUP to read it", ""),
    (["-wal", ""], True, "delete these two, then SIGHUP", "delete these two, then SIGHUP"),
    ([""], True, "delete these two, then SIGHUP", "delete these two, then SIGHUP"),
    ([""], False, "it is gone", "it is gone"),
    (["-wal", "-shm"], False, "restart the receiver", "restart the receiver"),
])  # fmt: skip
def test_another_register_in_the_place_of_the_open_one_is_told_and_opened_only_where_nothing_of_that_is_beside_it(
    settings: Path, tmp_path: Path, taken: list[str], put: bool, what: str, then: str
) -> None:
    run("accounts", "add", "1", "--config", str(settings))
    shutil.copy(tmp_path / "data" / FILE_NAME, tmp_path / "copy")
    register = load_accounts(config.load(settings))
    run("accounts", "remove", "1", "--config", str(settings))
    register.refresh()
    for end in taken:
        (tmp_path / "data" / f"{FILE_NAME}{end}").rename(tmp_path / f"away{end}")
    if put:
        (tmp_path / "copy").rename(tmp_path / "data" / FILE_NAME)
    for ask in (register.refresh, lambda: register.missing(["1"])):
        with pytest.raises(RegisterUnavailable, match=what):
            ask()
    if then:
        with pytest.raises(ConfigError, match=then):
            load_accounts(config.load(settings), register)
        assert (tmp_path / "data" / FILE_NAME).exists() is (put or "" not in taken)  # none is made
    else:
        found = load_accounts(config.load(settings), register)
        assert found.find("1").registered
        found.close()
    register.close()


@pytest.mark.parametrize("script", [
    "CREATE TABLE invoices (n);", "CREATE TABLE accounts (n); CREATE TABLE invoices (n);",
    "CREATE TABLE accounts (n); PRAGMA user_version = 1;",
])  # fmt: skip
def test_the_database_of_another_program_is_no_register_and_stays_as_it_is(tmp_path: Path, script: str) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as db:
        db.executescript(script)
    before = (tmp_path / FILE_NAME).read_bytes()
    with pytest.raises(ConfigError, match="no register of this program"):
        ManagedStore(tmp_path, None)
    assert (tmp_path / FILE_NAME).read_bytes() == before


def test_a_second_look_from_one_process_takes_no_lock_from_the_first(store: ManagedStore, tmp_path: Path) -> None:
    register = ManagedAccounts(store, None, None, 10)
    assert register.rotating() == []
    store.another().close()
    script = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('INSERT INTO changes (account) VALUES (7)'); "
    command = [sys.executable, "-c", script + "d.commit(); d.close()", str(tmp_path / FILE_NAME)]
    subprocess.run(command, check=True)  # believing itself the last to close, it would take the log away under us
    assert (tmp_path / f"{FILE_NAME}-wal").exists()
    assert register.refresh() == {"7"}


def test_what_is_kept_in_memory_is_bounded(store: ManagedStore) -> None:
    store.put([row(f"{n}") for n in range(30)], Path())
    register = ManagedAccounts(store, None, None, 10)
    for n in range(60):
        assert register.find(f"{n}").registered is (n < 30)
    assert len(register._kept) == 10
    assert "29" in set(register._kept)
    assert len(register._absent) == 10


def test_a_register_that_breaks_ends_nothing_and_each_command_says_so(settings: Path, tmp_path: Path) -> None:
    register = load_accounts(config.load(settings))
    run("accounts", "add", "1234", "--key-stdin", "--config", str(settings), feed=SECRET)
    register.refresh()
    with sqlite3.connect(tmp_path / "data" / FILE_NAME) as db:
        db.execute("UPDATE accounts SET key = x'00'")
        db.execute("INSERT INTO changes (account) VALUES ('1234')")
    db.close()
    register.refresh()
    for ask in (lambda: list(register), lambda: register.find("1234")):
        with pytest.raises(RegisterUnavailable, match="key of account 1234"):
            ask()
    told: list[Trouble] = []
    watch = KeyWatch(tmp_path, lambda: register, lambda _: None, told.append)
    asyncio.run(watch.renew())
    with sqlite3.connect(tmp_path / "data" / FILE_NAME) as db:
        db.execute("DROP TABLE accounts")
    db.close()
    for command in (("list",), ("export",), ("remove", "1234"), ("import", str(settings))):
        done = run("accounts", *command, "--config", str(settings))
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1), done.stderr
    with pytest.raises(RegisterUnavailable):
        asyncio.run(KeyWatch(tmp_path, lambda: register, lambda _: None, told.append).renew())
    register.close()


def test_an_account_that_cannot_be_read_gets_no_answer_and_one_in_memory_is_served(tmp_path: Path) -> None:
    store = ManagedStore(tmp_path, None)
    store.put([row("1234"), row("4321")], Path())
    desk = Desk()
    desk.pipeline.accounts = ManagedAccounts(store, None, None, 10)
    assert desk.send(panel("1234")) is not None
    with sqlite3.connect(tmp_path / FILE_NAME) as db:
        db.execute("DROP TABLE accounts")
    db.close()
    assert desk.send(panel("1234", sequence="0043")) is not None
    assert desk.send(panel("4321")) is None
    assert [refusal.reason for refusal in desk.journal.refusals] == ["register-unavailable"]
    store.close()


@pytest.mark.parametrize("content", [b"not a database" * 100, b"\0" * 5000])
def test_a_file_that_is_no_register_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be opened"):
        ManagedStore(tmp_path, None)


def test_a_csv_file_and_the_managed_register_are_not_both(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"store": "managed", "file": tmp_path / "a.csv"}
    settings = config.Settings(
        accounts=config.AccountsSettings(**chosen), receiver=config.ReceiverSettings(data_dir=tmp_path)
    )
    with pytest.raises(ConfigError, match="are both given"):
        load_accounts(settings)


@pytest.mark.parametrize("kind", ["csv", "managed"])
def test_people_who_change_the_register_at_once_lose_nothing(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "accounts.csv"

    def change(number: int) -> None:
        store: Store = CsvStore(file) if kind == "csv" else ManagedStore(tmp_path, Vault(MASTER))
        try:
            for turn in range(5):
                store.change(f"{number}{turn}", lambda _, name=f"{number}{turn}": row(name, key=SECRET))  # type: ignore[misc]
                store.change("777", lambda before: row("777", name=str(int((before or {}).get("name", "0")) + 1)))
        finally:
            store.close()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(change, range(1, 7)))
    store: Store = CsvStore(file) if kind == "csv" else ManagedStore(tmp_path, Vault(MASTER))
    found = {cells["account"]: cells for cells in store.rows(with_keys=True)}
    store.close()
    assert (len(found), found["777"]["name"]) == (31, "30")
    assert all(cells["key"] == SECRET for name, cells in found.items() if name != "777")


def test_a_command_that_is_killed_leaves_the_register_as_it_was(tmp_path: Path, settings: Path) -> None:
    store = ManagedStore(tmp_path / "data", Vault(MASTER))
    store.put([row("1", key=SECRET)], Path())
    table = tmp_path / "many.csv"
    table.write_text("account\n" + "".join(f"{n}\n" for n in range(2, 60_000)), "utf-8")
    command = [sys.executable, "-m", "receiver", "accounts", "import", "--config", str(settings), str(table)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "data" / f"{FILE_NAME}-wal"
    size = log.stat().st_size
    while process.poll() is None and not _is_locked(tmp_path / "data" / FILE_NAME) and log.stat().st_size == size:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert store.count() in (1, 59_999)  # the latter when the machine was so slow that it had ended
    assert [account.account for account in store.select("account = '1'")] == ["1"]
    store.change("1", lambda before: (before or {}) | {"name": "works on"})
    store.close()


def _is_locked(file: Path) -> bool:
    """Tell whether somebody writes to the database."""
    db = sqlite3.connect(file, timeout=0, isolation_level=None)
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    finally:
        db.close()
    return False
