"""Commands as people type them: exit codes, sentences, no tracebacks."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from protocols import dc09
from receiver import clock
from receiver.cli import main
from receiver.config import JournalSettings
from receiver.journal import Entry, Journal, Kind, Lane, Origin, Reader, Refusal
from receiver.journal.groups import pack
from receiver.pipeline import repeat_identity

SECRET = "00112233445566778899AABBCCDDEEFF"
DURESS = dc09.encode("ADM-CID", "0042", dc09.Address(None, "0", "1234"), b"#1234|1121 01 005", (("S", b"First Street"),))


def run(*args: str, feed: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, list(args), input=feed)


def test_decode_explains_a_frame() -> None:
    done = run("decode", DURESS.hex())
    told = json.loads(done.stdout)
    assert done.exit_code == 0
    assert (told["verdict"], told["reason"], told["events"][0]["event"]) == ("ack", None, "Duress (user code)")
    assert told["frame"]["crc_sent"] == told["frame"]["crc_computed"]
    assert told["message"]["extended"] == [["S", "First Street"]]
    assert bytes.fromhex(told["reply"])[9:] == b'"ACK"0042L0#1234[]\r'
    assert json.loads(run("decode", "-", feed=DURESS).stdout) == told


def test_decode_says_why_not() -> None:
    done = run("decode", DURESS.replace(b"121", b"131").hex())
    told = json.loads(done.stdout)
    assert (done.exit_code, told["verdict"], told["reason"], told["reply"]) == (1, "silence", "bad-crc", None)
    assert told["explanation"]
    refused = json.loads(run("decode", "--key", SECRET, DURESS.hex()).stdout)
    assert refused["reason"] == "plaintext-refused"


def test_decode_takes_a_batch(tmp_path: Path) -> None:
    key = dc09.Key.parse(SECRET)
    sealed = dc09.encode("NULL", "0000", dc09.Address(None, "0", "1234"), panel_time=1_790_000_000, key=key)
    lines = [{"frame": DURESS.hex()}, {"frame": sealed.hex(), "key": SECRET, "now": "2026-09-21T14:13:25Z"}, {"frame": ""}]
    file = tmp_path / "batch"
    file.write_text("\n\n".join(map(json.dumps, lines)), "utf-8")
    done = run("decode", "--batch", str(file))
    assert done.exit_code == 0
    assert [json.loads(line)["verdict"] for line in done.stdout.splitlines()] == ["ack", "ack", "silence"]
    file.write_bytes(b"\xff\xfe\n")
    assert "line 1: expected" in run("decode", "--batch", str(file)).stderr


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("decode",), "needs a FRAME"),
        (("decode", "xyz"), "not hexadecimal"),
        (("decode", "--key", "short", "00"), "a key is 32, 48 or 64 hex digits"),
        (("decode", "--now", "soon", "00"), "must be ISO 8601"),
        (("simulate", "127.0.0.1", "1", "--key", "short"), "--key: a key is"),
        (("simulate", "127.0.0.1", "1", "--account", "5é"), "of a frame are ASCII"),
        (("simulate", "127.0.0.1", "1", "--event", "x" * 5000), "a body has 4095 bytes at most"),
        (("check-config", "/nowhere.toml"), "there is no file"),
        (("serve", "--config", "/nowhere.toml"), "there is no file"),
        (("journal", "show", "--config", "/nowhere.toml"), "there is no file"),
        (("accounts", "list", "--last"), "No such option"),
        (("nonsense",), "No such command"),
    ],
)
def test_bad_usage_is_one_clear_sentence_and_exit_2(args: tuple[str, ...], sentence: str) -> None:
    done = run(*args)
    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.output
    assert "short" not in done.output.replace("shorter", "")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "receiver.toml"
    file.write_text('[accounts]\nfile = "accounts.csv"\n', "utf-8")
    (tmp_path / "accounts.csv").write_text(f"account,name,key,supervision_seconds\n1234,First Street,{SECRET},90\n", "utf-8")
    return file


def test_check_config_sums_up_or_tells_every_mistake(config: Path) -> None:
    done = run("check-config", str(config))
    assert done.exit_code == 0
    assert "1, 1 with a key, 1 supervised; unknown ones are refused" in done.stdout
    config.write_text("[http]\nport = 'x'\nwrong = 1\n", "utf-8")
    done = run("check-config", str(config))
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 2)
    config.write_text('[http]\nport = "x"\n[accounts]\nfile = "accounts.csv"\n', "utf-8")
    config.with_name("accounts.csv").write_text("account,time_zone\n1234,Mars\n5678,Venus\n", "utf-8")
    done = run("check-config", str(config))
    assert (done.exit_code, [line.split()[1] for line in done.stderr.splitlines()]) == (
        2, ["[http]", f"{config.with_name('accounts.csv')}", f"{config.with_name('accounts.csv')}"],
    )  # fmt: skip
    config.write_text('[accounts]\nfile = "absent.csv"\n', "utf-8")
    assert "[accounts] file: there is no file" in run("check-config", str(config)).stderr


def test_a_mistake_beside_the_register_hides_none_in_it(config: Path) -> None:
    config.write_text(
        '[receiver]\nnumber = "x"\n[accounts]\nfile = "none.csv"\nunknown = "x"\ndefault_key = "short"\n', "utf-8"
    )
    told = run("check-config", str(config)).stderr
    assert [told.count(words) for words in ("number is", "unknown is", "default_key: a key", "there is no file")] == [1] * 4


def test_a_header_with_spaces_is_changed_as_it_is_read(config: Path, tmp_path: Path) -> None:
    """Beside a second column ``key`` the first would stay in force, and the command would say that the key was changed."""
    register = tmp_path / "accounts.csv"
    register.write_text(f" account, name, key\n1234,First Street, {SECRET}\n", "utf-8")
    done = run("accounts", "add", "1234", "--key-stdin", "--config", str(config), feed=SECRET[::-1])
    assert done.exit_code == 0, done.stderr
    assert register.read_text("utf-8") == f"account,name,key\n1234,First Street,{SECRET[::-1]}\n"
    register.write_text(f"account,key,key\n1234,{SECRET},{SECRET[::-1]}\n", "utf-8")
    assert "line 1: the column key stands twice" in run("accounts", "list", "--config", str(config)).stderr


def test_an_exported_register_is_one_that_import_takes_whatever_the_terminal(config: Path, tmp_path: Path) -> None:
    (tmp_path / "accounts.csv").write_text("account,name\n1234,Zürich\n", "utf-8")
    line = [sys.executable, "-m", "receiver", "accounts", "export", "--config", str(config)]
    done = subprocess.run(line, stdout=subprocess.PIPE, env=os.environ | {"PYTHONIOENCODING": "latin-1"}, check=True)
    assert "1234,Zürich," in done.stdout.decode()


def test_a_key_that_is_no_text_is_one_clear_sentence(config: Path) -> None:
    done = run("accounts", "add", "1234", "--key-stdin", "--config", str(config), feed=b"\xff\xfe\n")
    assert (done.exit_code, "is no text" in done.stderr) == (2, True)


def test_accounts_are_listed_added_changed_removed_and_imported(config: Path, tmp_path: Path) -> None:
    def accounts(*args: str, feed: str | None = None) -> Result:
        return run("accounts", args[0], "--config", str(config), *args[1:], feed=feed)

    assert accounts("add", "5678", "--name", "New", "--key-stdin", feed=SECRET + "\n").exit_code == 0
    assert accounts("add", "1234", "--site", "Main street").exit_code == 0
    listed = accounts("list").stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["1234", "5678"]
    assert "AES-128" in listed
    assert SECRET not in listed
    wrong = accounts("add", "9999", "--time-zone", "Mars")
    assert (wrong.exit_code, "time_zone is 'Mars'" in wrong.stderr) == (2, True)
    more = tmp_path / "more.csv"
    more.write_text("account,name\n5678,Renamed\n7777,Seven\n", "utf-8")
    assert accounts("import", str(more)).exit_code == 0
    more.write_text("account\n8888\nno good\n", "utf-8")
    assert accounts("import", str(more)).exit_code == 2
    assert accounts("remove", "1234").exit_code == 0
    assert accounts("remove", "1234").exit_code == 2
    assert [line.split()[0] for line in accounts("list").stdout.splitlines()] == ["5678", "7777"]
    assert "Renamed" in accounts("list").stdout


@pytest.mark.parametrize("feed", ["", "\n", "  \n"])
def test_a_key_is_taken_away_only_by_its_own_option(config: Path, feed: str) -> None:
    def accounts(*args: str, feed: str | None = None) -> Result:
        return run("accounts", args[0], "--config", str(config), *args[1:], feed=feed)

    accounts("add", "5678", "--name", "New", "--key-stdin", feed=SECRET + "\n")
    for command in ("add", "rotate-key"):
        done = accounts(command, "5678", "--key-stdin", feed=feed)
        assert (done.exit_code, "standard input is empty" in done.stderr) == (2, True)
    both = accounts("add", "5678", "--key-stdin", "--no-key", feed=SECRET)
    assert (both.exit_code, "leave one out" in both.stderr) == (2, True)
    assert "AES-128" in next(line for line in accounts("list").stdout.splitlines() if line.startswith("5678"))
    accounts("rotate-key", "5678", "--key-stdin", feed=SECRET[::-1])
    assert accounts("add", "5678", "--no-key").exit_code == 0
    line = next(line for line in accounts("list").stdout.splitlines() if line.startswith("5678"))
    assert ("no key" in line, "New" in line, accounts("list", "--old-keys").stdout) == (True, True, "")
    assert accounts("add", "6789", "--no-key").exit_code == 0


def test_without_a_register_the_command_says_what_to_set(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    file.write_text("", "utf-8")
    done = run("accounts", "add", "1", "--config", str(file))
    assert (done.exit_code, "set [accounts] file" in done.stderr) == (2, True)


def _fill(folder: Path, raw: bytes = DURESS) -> None:
    frame = dc09.split_datagram(raw)[0]
    assert isinstance(frame, dc09.Frame)
    identity = repeat_identity(dc09.unseal(dc09.open_envelope(frame), None))
    now = clock.now_us()
    trouble = b'{"reason": "unknown-account", "text": "account 9 is not registered", "account": "9"}'
    path = b'{"account": "1234", "listener": "main", "state": "lost", "role": "backup", "last_seen": "2026-11-24T10:00:00Z"}'

    async def story() -> None:
        journal = Journal(folder, JournalSettings(), [Origin("1", "2", "main", "tcp")])
        journal.refuse(Refusal(now, "bad-crc", "the CRC does not fit", "9", "main", "tcp", "127.0.0.1:9", b"\n\x1b[31m\xff"))
        await journal.append([Entry(0, identity, now, None, 1, "127.0.0.1:1", "unregistered", raw, None, ((0, 1, 1),))])
        await journal.append([Entry(Kind.TROUBLE.value, b"t" * 16, now, None, 1, "", "", b"", trouble, ((1, 5, 0),))])
        await journal.append([Entry(Kind.PATH.value, b"p" * 16, now, None, 1, "", "", b"", path, ((1, 5, 0),))])
        await journal.close()

    asyncio.run(story())


def test_the_journal_is_shown_exported_and_verified(config: Path, tmp_path: Path) -> None:
    _fill(tmp_path / "data")
    shown = run("journal", "show", "--config", str(config))
    assert shown.exit_code == 0
    first, second, third = shown.stdout.splitlines()
    assert "DURESS" in first
    assert "Duress (user code) partition 01 user 005 [unregistered]" in first
    assert "account 9 is not registered" in second
    assert "path lost at listener main (backup), last heard 2026-11-24T10:00:00Z" in third
    refused = run("journal", "show", "--refused", "--config", str(config)).stdout
    assert "bad-crc" in refused
    assert "\\n\\x1b[31m\\xff" in refused
    assert "\x1b" not in refused
    exported: list[dict[str, Any]] = [
        json.loads(line) for line in run("journal", "export", "--config", str(config)).stdout.splitlines()
    ]
    assert [event["type"].split(".")[1] for event in exported] == ["signal", "trouble", "path"]
    assert exported[0]["data"]["account_name"] == "First Street"
    assert exported[0]["source"] == "/receivers/1/lines/2"
    verified = run("journal", "verify", "--config", str(config))
    assert (verified.exit_code, "3 events, none damaged" in verified.stdout) == (0, True)


@pytest.mark.parametrize("stamp", [b"", b"_00:00:00,00-00-0000", b"_10:01:02,11-23-2026"])
def test_what_is_never_a_repeat_verifies_too(config: Path, tmp_path: Path, stamp: bytes) -> None:
    _fill(tmp_path / "data", dc09.wrap(b'"ADM-CID"0000L0#1234[#1234|1121 01 005]' + stamp))
    verified = run("journal", "verify", "--config", str(config))
    assert (verified.exit_code, "3 events, none damaged" in verified.stdout) == (0, True)


def _edit(folder: Path, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(folder / "journal.sqlite")) as db, db:
        db.execute(statement, values)


def test_damage_in_the_journal_is_told_and_exits_1(config: Path, tmp_path: Path) -> None:
    _fill(tmp_path / "data")
    with closing(sqlite3.connect(tmp_path / "data" / "journal.sqlite")) as db:
        content = db.execute("SELECT content FROM groups WHERE last = 1").fetchone()[0]
    _edit(tmp_path / "data", "UPDATE groups SET content = ? WHERE last = 1", content.replace(b"#1234", b"#1235"))
    _edit(tmp_path / "data", "DELETE FROM groups WHERE last = 2")
    told = json.loads(run("journal", "export", "--config", str(config)).stdout.splitlines()[0])
    assert (told["data"]["reason"], told["data"]["count"]) == ("journal-damaged", 1)
    assert "positions 1 to 1 cannot be read" in told["data"]["text"]
    assert "cannot be read" in run("journal", "show", "--config", str(config)).stdout
    done = run("journal", "verify", "--config", str(config))
    assert done.exit_code == 1
    assert "1 positions are missing" in done.stdout
    assert "positions 1 to 1: the checksum does not fit" in done.stdout


def test_a_stored_signal_that_was_altered_with_its_checksum_is_found(config: Path, tmp_path: Path) -> None:
    _fill(tmp_path / "data")
    reader = Reader(tmp_path / "data")
    row = reader.last(3)[0].row
    reader.close()
    other = dc09.encode("ADM-CID", "0042", dc09.Address(None, "0", "1234"), b"#1234|1602 00 000")  # whole, and another
    forged = Entry(0, row.identity, row.received_us, None, 1, row.peer, row.flags, other, None, ((0, 1, 1),))
    (group,) = pack(1, [forged])
    _edit(tmp_path / "data", "UPDATE groups SET parts = ?, content = ? WHERE last = 1", group.parts, group.content)
    done = run("journal", "verify", "--config", str(config))
    assert done.exit_code == 1
    assert "position 1: its content is not what was acknowledged" in done.stdout


def test_a_row_that_says_other_than_its_content_is_found(config: Path, tmp_path: Path) -> None:
    _fill(tmp_path / "data")
    _edit(tmp_path / "data", "UPDATE groups SET urgent = 0 WHERE last = 1")
    done = run("journal", "verify", "--config", str(config))
    assert done.exit_code == 1
    assert "positions 1 to 1: what the row says of its content is not so" in done.stdout


def test_no_event_is_shown_as_sent_before_it_came(config: Path, tmp_path: Path) -> None:
    before = clock.now_us() - 700_000
    _fill(tmp_path / "data")
    config.write_text(config.read_text("utf-8") + "[[outputs]]\n", "utf-8")
    spans = [("events", lane.value, 1, 9, before, clock.now_us() + 400_000) for lane in Lane]
    for span in spans:
        _edit(tmp_path / "data", "INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?)", *span)
    lines = run("journal", "show", "--config", str(config)).stdout.splitlines()
    came = [line.split()[1] for line in lines[0:6:2]]
    sent = [line.split()[2].rstrip(",") for line in lines[1:6:2]]
    assert sent == came


def test_output_that_takes_no_more_is_not_blamed_on_the_register(config: Path, tmp_path: Path) -> None:
    _fill(tmp_path / "data")
    (tmp_path / "accounts.csv").write_text("account\n" + "".join(f"{n}\n" for n in range(20000)), "utf-8")
    commands = [
        f"{name} --config {config}" for name in ("journal export", "journal show", "accounts list", "accounts export")
    ]
    for command in ("simulate --udp 127.0.0.1 1", *commands):  # each datagram is refused at once, which is told as silence
        line = [sys.executable, "-m", "receiver", *command.split()]
        with open("/dev/full", "w") as full:
            done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1, command
        assert done.stderr == "dc09-receiver: standard output cannot be written: No space left on device\n"
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as export:
        assert export.stdout is not None
        assert export.stderr is not None
        export.stdout.close()  # as head does
        assert (export.wait(), export.stderr.read()) == (1, "")


def test_a_journal_that_is_not_there_is_a_clear_mistake(config: Path) -> None:
    done = run("journal", "export", "--config", str(config))
    assert (done.exit_code, "there is no journal" in done.stderr) == (2, True)


def test_bytes_of_the_wire_cannot_reach_the_terminal(config: Path, tmp_path: Path) -> None:
    raw = dc09.encode("SIA-DCS", "0001", dc09.Address(None, "0", "1234"), b"#1234|Nri\x1b[2Jx/HA1^\x07\x1b]0;owned^")

    async def story() -> None:
        journal = Journal(tmp_path / "data", JournalSettings(), [Origin("1", "1", "main", "tcp")])
        await journal.append([Entry(0, b"x" * 16, clock.now_us(), None, 1, "127.0.0.1:1", "", raw, None, ((0, 1, 1),))])
        await journal.close()

    asyncio.run(story())
    done = run("journal", "show", "--config", str(config))
    assert done.exit_code == 0
    assert "HA" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\x07" not in done.stdout


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ((), "needs an ACCOUNT"),
        (("1234", "--by", "b"), "--reason is needed"),
        (("1234", "--reason", "r"), "--by is needed"),
        (("1234", "--reason", "r\x1b", "--by", "b"), "--reason is needed"),
        (("1234", "--reason", "r", "--by", "b", "--for", "25h"), "24 hours at most"),
        (("1234", "--reason", "r", "--by", "b", "--for", "0m"), "24 hours at most"),
        (("1234", "--reason", "r", "--by", "b", "--for", "soon"), "write 2h"),
        (("1234", "--reason", "r", "--by", "b", "--until", "2020-01-01T00:00:00Z"), "a time to come"),
        (("1234", "--reason", "r", "--by", "b", "--until", "tomorrow"), "ISO 8601"),
        (("1234", "--reason", "r", "--by", "b", "--until", "x", "--for", "1h"), "leave one out"),
        (("1234", "--reason", "r", "--by", "b", "--points", "0"), "can name none"),
        (("1234", "--end", "--by", "b", "--reason", "\x1b[2J"), "--reason is needed"),
        (("9999", "--reason", "r", "--by", "b"), "there is no account 9999"),
        (("1234", "--end", "--by", "b"), "is not on test"),
        (("1234", "--reason", "r", "--by", "b"), "cannot be written"),
    ],
)
def test_a_test_needs_an_account_a_reason_a_person_and_an_end(config: Path, args: tuple[str, ...], sentence: str) -> None:
    done = run("accounts", "test", "--config", str(config), *args)
    assert (done.exit_code, sentence in done.stderr) == (2, True), done.stderr
    assert "Traceback" not in done.output


def test_a_key_is_rotated_to_one_that_only_its_file_has(config: Path, tmp_path: Path) -> None:
    new = tmp_path / "new-key"
    done = run("accounts", "rotate-key", "1234", "--generate", str(new), "--config", str(config))
    assert done.exit_code == 0, done.stderr
    key = new.read_text("ascii").strip()
    assert (len(key), new.stat().st_mode & 0o777, key in done.output) == (32, 0o600, False)
    row = (tmp_path / "accounts.csv").read_text("utf-8").splitlines()[1]
    assert row.startswith(f"1234,First Street,{key},90,{SECRET},")
    again = run("accounts", "rotate-key", "1234", "--generate", str(tmp_path / "other"), "--config", str(config))
    assert (again.exit_code, "is being rotated already" in again.stderr) == (2, True)
    assert not (tmp_path / "other").exists()
    longer = run("accounts", "rotate-key", "1234", "--prolong", "--overlap", "9d", "--config", str(config))
    assert (longer.exit_code, "works until" in longer.stderr) == (0, True)
    listed = run("accounts", "list", "--old-keys", "--config", str(config)).stdout
    assert "nothing heard since the rotation" in listed
    assert SECRET not in listed


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("1234",), "needs one of"),
        (("1234", "--key-stdin", "--overlap", "soon"), "write 24h"),
        (("1234", "--key-stdin", "--overlap", "999d"), "at most 400d"),
        (("1234", "--key-stdin"), "a key is 32"),
        (("9999", "--key-stdin"), "there is no account 9999"),
        (("1234", "--generate", "/nowhere/key"), "cannot be written"),
    ],
)
def test_a_rotation_that_cannot_be_is_one_clear_sentence(config: Path, args: tuple[str, ...], sentence: str) -> None:
    before = (config.parent / "accounts.csv").read_bytes()
    done = run("accounts", "rotate-key", "--config", str(config), *args, feed="tooshort\n")
    assert (done.exit_code, sentence in done.stderr) == (2, True), done.stderr
    assert "tooshort" not in done.output
    assert (config.parent / "accounts.csv").read_bytes() == before


def test_the_register_is_exported_without_keys_unless_a_file_is_named_for_them(config: Path, tmp_path: Path) -> None:
    done = run("accounts", "export", "--config", str(config))
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1].startswith("1234,First Street,")
    assert SECRET not in done.stdout
    copy = tmp_path / "copy.csv"
    done = run("accounts", "export", "--with-keys", str(copy), "--config", str(config))
    assert (done.exit_code, SECRET in done.output, SECRET in copy.read_text("utf-8")) == (0, False, True)
    assert copy.stat().st_mode & 0o777 == 0o600
    assert run("accounts", "import", str(copy), "--config", str(config)).exit_code == 0
    assert run("accounts", "export", "--with-keys", str(copy), "--config", str(config)).exit_code == 2


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (
            b"",
            "journal.sqlite is empty, 0 bytes: its first start was cut short, or it was emptied; leave the files beside it",
        ),
        (b"no database", "journal.sqlite can be read: file is not a database; leave it and the files beside it as they are"),
        (
            b"SQLite format 3\0" + bytes(range(256)) * 99,
            "file is not a database; leave it and the files beside it as they are",
        ),
    ],
    ids=["empty", "text", "garbage"],
)
def test_a_journal_of_which_nothing_can_be_read_is_damage_and_told_with_what_to_do(
    tmp_path: Path, content: bytes, wanted: str
) -> None:
    config = tmp_path / "receiver.toml"
    config.write_text("[receiver]\n", "utf-8")
    file = tmp_path / "data" / "journal.sqlite"
    file.parent.mkdir()
    file.write_bytes(content)
    verified = run("journal", "verify", "--config", str(config))
    assert (verified.exit_code, wanted in verified.stdout, "the next start" in verified.stdout) == (1, True, True)
    for command in ("show", "export"):
        done = run("journal", command, "--config", str(config))
        assert (done.exit_code, wanted in done.stderr, done.stdout) == (2, True, "")
    assert file.read_bytes() == content


def test_a_database_of_something_else_is_not_called_an_old_journal(tmp_path: Path) -> None:
    config = tmp_path / "receiver.toml"
    config.write_text("[receiver]\n", "utf-8")
    (tmp_path / "data").mkdir()
    with closing(sqlite3.connect(tmp_path / "data" / "journal.sqlite")) as db:
        db.execute("CREATE TABLE other (one)")
    done = run("journal", "verify", "--config", str(config))
    assert (done.exit_code, "is a database, and no journal of this program; move it away" in done.stderr) == (2, True)
