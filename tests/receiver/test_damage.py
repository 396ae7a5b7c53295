"""A damaged journal: what can be read is carried over at its place, what cannot is counted, nothing is skipped silently."""

import asyncio
import atexit
import os
import random
import re
import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import lru_cache
from pathlib import Path

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from receiver import journal as package
from receiver.accounts import Accounts
from receiver.cli import main
from receiver.config import JournalSettings
from receiver.errors import JournalDamaged, JournalUnavailable
from receiver.events import render_or_tell
from receiver.journal import (
    DEAD,
    Entry,
    Journal,
    Lane,
    Letter,
    Origin,
    Reader,
    Receipt,
    Stored,
    burial,
    check_whole,
    marked_damage,
    salvage,
)
from receiver.journal.groups import PART_MESSAGES
from receiver.journal.log import Log, checksum, log_of, lost_groups
from receiver.journal.pages import rows_of
from receiver.journal.salvage import Damage

ORIGIN = Origin("1", "1", "main", "tcp")
START = 1_790_000_000_000_000
COUNT, TOGETHER, PAGE = 400, 50, 4096


def message(number: int, lane: Lane = Lane.NORMAL) -> list[Entry]:
    identity, events = b"message %d" % number, ((lane.value, 5, 0),)
    return [Entry(0, identity, START, None, 1, "127.0.0.1:1", "", b"raw %d " % number * 20, None, events)]


@lru_cache
def _filled(alone: bool) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="damage-")) / "data"
    atexit.register(shutil.rmtree, folder.parent)
    _fill(folder, alone)
    return folder


def fill(folder: Path, alone: bool = False) -> None:
    """Store messages, the output half way; ``alone``: a commit each, and the process is lost with its log."""
    made = _filled(alone)
    shutil.copytree(made, folder)
    if alone:
        shutil.copytree(made.with_name("lost"), folder.with_name("lost"))


def _fill(folder: Path, alone: bool) -> None:
    async def run() -> None:
        journal = Journal(folder, JournalSettings(), [ORIGIN], lambda: START)
        cursor = journal.cursor("out", Lane.NORMAL)
        if alone:
            for number in range(1, 31):
                await journal.append(message(number))
            copy = folder.with_name("lost")
            copy.mkdir()
            for name in ("journal.sqlite", "journal.sqlite-wal"):
                shutil.copy(folder / name, copy / name)
        else:
            for first in range(1, COUNT + 1, TOGETHER):
                numbers = range(first, first + TOGETHER)
                await journal.append([message(n, Lane.URGENT if n % 50 == 0 else Lane.NORMAL)[0] for n in numbers])
            cursor.advance(COUNT // 2, COUNT // 2)
            journal.save(cursor)
        await journal.close()

    asyncio.run(run())


def start(folder: Path) -> tuple[Damage | None, int, Receipt]:
    """Start as the receiver does; return the damage, the output's place and the receipt of one more message."""

    async def run() -> tuple[Damage | None, int, Receipt]:
        journal = Journal(folder, JournalSettings(), [ORIGIN], lambda: START)
        cursor = journal.cursor("out", Lane.NORMAL)
        (receipt,) = await journal.append(message(9999))
        assert isinstance(receipt, Receipt)
        damage, place = journal.damage, cursor.position
        await journal.close()
        return damage, place, receipt

    return asyncio.run(run())


def found(folder: Path) -> dict[int, bytes]:
    reader = Reader(folder)
    stored = {event.position: event.row.identity for event in reader.all()}
    reader.close()
    return stored


def spoil(file: Path, offset: int, size: int = PAGE) -> None:
    with file.open("r+b") as raw:
        raw.seek(offset)
        raw.write(os.urandom(size))


def pages(folder: Path) -> list[int]:
    """Return where the pages with messages lie in the file, the oldest first."""
    content = (folder / "journal.sqlite").read_bytes()
    found = [at for at in range(PAGE, len(content), PAGE) if _numbers(content[at : at + PAGE])]
    return sorted(found, key=lambda at: min(_numbers(content[at : at + PAGE])))


def heads(folder: Path) -> list[int]:
    """Return those of the pages on which commits begin."""
    content = (folder / "journal.sqlite").read_bytes()
    return [at for at in pages(folder) if content[at] == 0x0D]


def _numbers(page: bytes) -> list[int]:
    return [int(number) for number in re.findall(rb"message (\d+)\xcf", page)]  # 0xCF: its time follows


@pytest.mark.parametrize("which", [0, 1, 2, 3, -1])
def test_a_damaged_page_costs_what_lies_on_it_and_little_more(tmp_path: Path, which: int) -> None:
    """A page in the middle of a commit takes the parts that touch it; one with the head of commits takes those, at most."""
    folder = tmp_path / "data"
    fill(folder)
    page = pages(folder)[which]
    content = (folder / "journal.sqlite").read_bytes()[page : page + PAGE]
    touched, head, number = _numbers(content), content[0] == 0x0D, page // PAGE + 1
    following = int.from_bytes(content[:4], "big")
    spoil(folder / "journal.sqlite", page)
    damage, place, receipt = start(folder)
    assert damage is not None
    assert damage.cursors_kept
    assert place == COUNT // 2
    kept = found(folder)
    gone = {position for position in range(1, COUNT + 1) if kept.get(position) != b"message %d" % position}
    assert all(kept[position] == b"message %d" % position for position in kept if position != receipt.position)
    near = TOGETHER if head or following not in (0, number + 1, number - 1) else PART_MESSAGES
    assert gone
    assert min(touched) - near < min(gone) <= max(gone) < max(touched) + near
    if which != -1:
        assert damage.lost == len(gone)
        assert receipt.position == COUNT + 1
    assert damage.kept == COUNT - len(gone)
    assert (damage.folder / "journal.sqlite").read_bytes()[page : page + 4] != b"\r\0\0\0"
    assert str(damage.folder) in str(damage)
    assert start(folder)[0] is None, "the new journal is sound"


def test_what_comes_after_damage_lies_beyond_every_outputs_place(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    fill(folder)
    with closing(sqlite3.connect(folder / "journal.sqlite")) as db:
        db.execute("UPDATE cursors SET position = ?", (COUNT,))
        db.commit()
    spoil(folder / "journal.sqlite", pages(folder)[-1])
    damage, place, receipt = start(folder)
    assert damage is not None
    assert place == COUNT
    assert receipt.position == COUNT + 1
    assert damage.lost > 0


def test_a_journal_of_which_nothing_can_be_read_is_replaced_loudly(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    fill(folder)
    size = (folder / "journal.sqlite").stat().st_size
    spoil(folder / "journal.sqlite", 0, size)
    damage, place, receipt = start(folder)
    assert damage is not None
    assert (damage.kept, damage.cursors_kept) == (0, False)
    assert "places were lost" in str(damage)
    assert "(file is not a database); nothing of it could be read, nor how many events it held" in str(damage)
    assert "keep that folder, take what is missing from the outputs' side and the panels" in str(damage)
    assert (place, receipt.position) == (0, 1)
    assert (damage.folder / "journal.sqlite").stat().st_size == size
    assert damage.folder.stat().st_mode & 0o777 == 0o700


def test_an_emptied_file_costs_nothing_that_its_log_holds_also_when_somebody_looks_at_it_first(tmp_path: Path) -> None:
    fill(tmp_path / "data", alone=True)
    folder = tmp_path / "lost"
    os.truncate(folder / "journal.sqlite", 0)
    log = (folder / "journal.sqlite-wal").read_bytes()
    with pytest.raises(JournalDamaged, match=r"journal\.sqlite is empty, 0 bytes: .* carries over what its log holds"):
        Reader(folder)
    assert (folder / "journal.sqlite-wal").read_bytes() == log  # SQLite deletes it beside an empty file
    damage, _, receipt = start(folder)
    assert damage is not None
    assert (damage.kept, damage.what) == (30, "journal.sqlite was empty, 0 bytes, though a receiver had used it")
    assert receipt.position == 31
    assert set(found(folder)) == set(range(1, 32))


@pytest.mark.parametrize("tree", ["dead_letters", "sqlite_autoindex_dead_letters_1"])
def test_damaged_dead_letters_of_a_large_file_keep_no_receiver_from_starting_and_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: str
) -> None:
    fill(tmp_path / "data")
    folder = tmp_path / "data"
    with closing(sqlite3.connect(folder / "journal.sqlite", isolation_level=None)) as db:
        for position in range(1, 21):
            burial(Letter("out", START, 3, "no", DEAD, None), position, message(position)[0].rows()[0])(db)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (tree,)).fetchone()
    spoil(folder / "journal.sqlite", (page - 1) * PAGE)
    monkeypatch.setattr(salvage, "CHECKED_AT_START_BYTES", 0)
    damage, _, receipt = start(folder)
    assert damage is not None
    assert (damage.kept, damage.lost, damage.cursors_kept, receipt.position) == (COUNT, 0, True, COUNT + 1)
    assert ("not all dead letters could be read" in str(damage)) is (tree == "dead_letters")
    reader = Reader(folder)
    assert reader.count_dead("out") == (0 if tree == "dead_letters" else 20)
    reader.close()


def test_what_a_command_cannot_read_is_told_in_a_sentence_and_noted_for_the_next_start(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    folder = tmp_path / "data"
    (tmp_path / "receiver.toml").write_text("", "utf-8")
    spoil(folder / "journal.sqlite", pages(folder)[1])
    for command in ("show --last 400", "export"):
        done = CliRunner().invoke(main, ["journal", *command.split(), "--config", str(tmp_path / "receiver.toml")])
        assert done.exit_code == 2
        assert "dc09-receiver: not all of" in done.stderr
        assert "the next start of the receiver keeps them aside" in done.stderr
    assert marked_damage(folder)


@pytest.mark.parametrize("used", [False, True])
def test_an_empty_file_is_told_where_a_receiver_had_used_it_and_not_after_a_first_start_that_was_cut_short(
    tmp_path: Path, used: bool
) -> None:
    (tmp_path / "journal.sqlite").touch()
    if used:
        (tmp_path / "paths.state").touch()
    damage, _, receipt = start(tmp_path)
    assert receipt.position == 1
    assert (damage is not None) is used
    if damage is not None:
        assert str(damage).startswith(
            "the journal was damaged (journal.sqlite was empty, 0 bytes, though a receiver had used it); nothing of it "
            "could be read, nor how many events it held; a new one was begun, empty; the damaged files are kept in "
            f"{damage.folder}: keep"
        )
        assert (damage.folder / "journal.sqlite").is_file()


def test_pages_are_read_where_the_tree_above_them_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    fill(folder)
    file = folder / "journal.sqlite"
    content = file.read_bytes()
    inner = [at for at in range(PAGE, len(content), PAGE) if content[at] == 0x05]
    for page in (0, *inner):  # the first page, with the schema, and every inner page of the tree
        spoil(file, page)
    damage, place, receipt = start(folder)
    assert inner
    assert damage is not None
    assert (damage.kept, damage.lost) == (COUNT, 0)
    assert found(folder) == {n: b"message %d" % n for n in range(1, COUNT + 1)} | {receipt.position: b"message 9999"}
    assert receipt.position == COUNT + 1
    assert place == 0, "the outputs' places could not be read"


def test_a_long_row_is_read_from_its_chain_of_pages(tmp_path: Path) -> None:
    raw = os.urandom(10_000)

    async def run() -> None:
        journal = Journal(tmp_path, JournalSettings(), [ORIGIN], lambda: START)
        for number in (1, 2, 3):
            await journal.append([replace(message(number)[0], raw=raw, panel_time=-5, body="é".encode(), flags="é")])
        await journal.close()

    asyncio.run(run())
    spoil(tmp_path / "journal.sqlite", 0)
    damage, _, _ = start(tmp_path)
    assert damage is not None
    assert damage.kept == 3
    reader = Reader(tmp_path)
    first = next(iter(reader.all()))
    reader.close()
    assert first.row == replace(message(1)[0], raw=raw, panel_time=-5, body="é".encode(), flags="é").rows()[0]


def test_a_row_whose_origin_was_lost_is_read_all_the_same(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    with closing(sqlite3.connect(tmp_path / "data" / "journal.sqlite")) as db:
        db.execute("DELETE FROM origins")
        db.commit()
    reader = Reader(tmp_path / "data")
    assert reader.last(1)[0].origin.listener == "unknown"
    reader.close()


@pytest.mark.parametrize("seed", range(20))
def test_any_page_gives_rows_or_nothing(seed: int) -> None:
    chance = random.Random(seed)
    page = bytearray(chance.randbytes(PAGE))
    page[0] = 0x0D
    for _ in rows_of(bytes(page), lambda _position: True, lambda _number: bytes(page)):
        continue


def test_lost_places_mean_that_everything_is_handed_over_again(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    fill(folder)
    content = (folder / "journal.sqlite").read_bytes()
    page = next(at for at in range(PAGE, len(content), PAGE) if content[at] == 0x0A and b"out" in content[at : at + PAGE])
    spoil(folder / "journal.sqlite", page)
    damage, place, _ = start(folder)
    assert damage is not None
    assert (damage.kept, damage.lost, damage.cursors_kept) == (COUNT, 0, False)
    assert place == 0


def _spoiled_log(tmp_path: Path, frame: int, offset: int, size: int = 8) -> Path:
    fill(tmp_path / "data", alone=True)
    folder = tmp_path / "lost"
    spoil(log_of(folder / "journal.sqlite"), 32 + (frame - 1) * (24 + PAGE) + offset, size)
    return folder


def _frames(tmp_path: Path) -> list[int]:
    """Return the numbers of the frames that the log of a lost process holds."""
    log = Log(log_of(tmp_path / "lost" / "journal.sqlite"))
    numbers = [frame.number for frame in log.own(1)]
    log.close()
    return numbers


def test_damage_that_is_met_at_the_start_is_mended_though_the_file_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "CHECKED_AT_START_BYTES", 0)
    fill(tmp_path / "data")
    spoil(tmp_path / "data" / "journal.sqlite", pages(tmp_path / "data")[3])
    damage, _, receipt = start(tmp_path / "data")
    assert damage is not None
    assert receipt.position == COUNT + 1


@pytest.mark.parametrize("offset", [30, 2000, 0, 12], ids=["content", "middle", "page number", "salt"])
def test_groups_behind_a_bad_frame_of_the_log_are_not_dropped(tmp_path: Path, offset: int) -> None:
    folder = _spoiled_log(tmp_path, 20, offset)
    damage, _, receipt = start(folder)
    assert damage is not None
    assert "frame 20" in damage.what
    kept = found(folder)
    assert kept[30] == b"message 30"
    assert damage.lost == 30 - damage.kept <= 1
    assert receipt.position == 31
    assert (damage.folder / "journal.sqlite-wal.damaged").is_file()


def test_a_damaged_head_of_the_log_is_damage(tmp_path: Path) -> None:
    fill(tmp_path / "data", alone=True)
    spoil(tmp_path / "lost" / "journal.sqlite-wal", 8, 8)
    damage, _, _ = start(tmp_path / "lost")
    assert damage is not None
    assert "header of the log" in damage.what


def test_a_last_group_that_was_torn_is_no_damage(tmp_path: Path) -> None:
    fill(tmp_path / "data", alone=True)
    last = _frames(tmp_path)[-1]
    spoil(tmp_path / "lost" / "journal.sqlite-wal", 32 + (last - 1) * (24 + PAGE) + 2000, 512)
    damage, _, receipt = start(tmp_path / "lost")
    assert damage is None
    assert receipt.position == 30


def test_a_log_that_holds_nothing_is_no_damage(tmp_path: Path) -> None:
    log = tmp_path / "journal.sqlite-wal"
    assert lost_groups(log, 0) is None
    log.write_bytes(b"")
    assert lost_groups(log, 0) is None
    log.write_bytes(bytes(3 * PAGE))
    assert lost_groups(log, 0) is None


def test_the_checksum_is_sqlites(tmp_path: Path) -> None:
    fill(tmp_path / "data", alone=True)
    log = Log(log_of(tmp_path / "lost" / "journal.sqlite"))
    assert log.sound
    assert checksum(log.header[:24], (0, 0), log.big_endian) == log.sums
    first = log.frame(1)
    assert log.fits(first, log.sums)
    assert not log.fits(first._replace(page=first.page + 1), log.sums)
    log.close()


def test_a_crash_while_a_damaged_journal_is_replaced_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process is lost at each step of putting the new journal in place; the next start goes on."""
    steps = 0

    class Lost(Exception):
        """The process ends here."""

    real = {name: getattr(os, name) for name in ("rename", "link", "fsync", "unlink", "mkdir")}
    for step in range(1, 100):
        folder = tmp_path / str(step) / "data"
        fill(folder)
        spoil(folder / "journal.sqlite", pages(folder)[3])
        steps = 0

        def dying(name: str, step: int = step) -> object:
            def call(*args: object, **more: object) -> object:
                nonlocal steps
                steps += 1
                if steps == step:
                    raise Lost
                return real[name](*args, **more)

            return call

        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, dying(name))
            try:
                salvage.check(folder / "journal.sqlite")
                done = True
            except Lost:
                done = False
        _, place, receipt = start(folder)
        assert receipt.position == COUNT + 1, step
        assert place == COUNT // 2
        assert len(found(folder)) > COUNT - 60
        if done:
            break
    assert steps > 4


def test_a_large_file_is_checked_after_the_start_and_mended_at_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "CHECKED_AT_START_BYTES", 0)
    folder = tmp_path / "data"
    fill(folder)
    assert package.salvage.check(folder / "journal.sqlite") == (None, False)
    check_whole(folder)
    assert marked_damage(folder) is None
    spoil(folder / "journal.sqlite", pages(folder)[3])
    assert package.salvage.check(folder / "journal.sqlite") == (None, False), "not met at the start"
    check_whole(folder)
    assert "page" in (marked_damage(folder) or "")
    damage, _, _ = start(folder)
    assert damage is not None
    check_whole(folder)
    assert marked_damage(folder) is None


def test_damage_met_while_reading_is_noted_for_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salvage, "CHECKED_AT_START_BYTES", 0)
    folder = tmp_path / "data"
    fill(folder)
    spoil(folder / "journal.sqlite", heads(folder)[-1])
    reader = Reader(folder)
    with pytest.raises(JournalUnavailable, match="malformed"):
        reader.after(Lane.NORMAL, COUNT - 20, 100)
    reader.close()
    assert marked_damage(folder) == "database disk image is malformed"
    assert start(folder)[0] is not None
    assert marked_damage(folder) is None


def _alter(folder: Path, position: int) -> None:
    """Alter one byte of a stored message, as a disk might; SQLite does not see it."""
    with closing(sqlite3.connect(folder / "journal.sqlite")) as db, db:
        last, content = db.execute("SELECT last, content FROM groups WHERE last >= ? ORDER BY last", (position,)).fetchone()
        spoilt = bytearray(content)
        spoilt[content.index(b"message %d\xcf" % position) + 30] ^= 4
        db.execute("UPDATE groups SET content = ? WHERE last = ?", (bytes(spoilt), last))


@pytest.mark.parametrize(("position", "lost", "urgent"), [(70, "67 to 82", 0), (100, "99 to 100", 1)])
def test_altered_bytes_cost_their_part_and_are_told_in_each_lane_they_were_in(
    tmp_path: Path, position: int, lost: str, urgent: int
) -> None:
    folder = tmp_path / "data"
    fill(folder)
    _alter(folder, position)
    reader = Reader(folder)
    told: dict[Lane, list[Stored]] = {}
    for lane in Lane:
        found, place = list[Stored](), 0
        while batch := reader.after(lane, place, 7):
            found, place = found + batch, batch[-1].position
        told[lane] = [event for event in found if event.lost]
        assert sum(event.stands_for for event in found) == (8 if lane is Lane.URGENT else COUNT - 8)
        assert [event.position for event in found] == sorted({event.position for event in found})
    first, last = map(int, lost.split(" to "))
    assert [event.stands_for for event in told[Lane.URGENT]] == [1] * urgent
    assert [event.stands_for for event in told[Lane.NORMAL]] == [last - first + 1 - urgent]
    (event,) = told[Lane.NORMAL]
    assert (event.lost, event.position) == (lost, last)
    data = render_or_tell(event, Accounts({})).cloud_event["data"]
    assert (data["reason"], data["count"]) == ("journal-damaged", last - first + 1 - urgent)
    assert f"positions {lost} cannot be read" in data["text"]
    assert [e.lost for e in reader.all() if e.lost] == [lost]
    reader.close()
    assert marked_damage(folder) == "the group of positions 51 to 100 is not as it was written"


def test_altered_bytes_are_found_at_start_and_what_is_sound_is_carried_over(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    fill(folder)
    _alter(folder, 70)
    damage, place, receipt = start(folder)
    assert damage is not None
    assert (damage.kept, damage.lost, damage.cursors_kept) == (COUNT - 16, 16, True)
    assert "positions 51 to 100" in damage.what
    assert (place, receipt.position) == (COUNT // 2, COUNT + 1)
    assert found(folder).keys() == {*range(1, COUNT + 2)} - {*range(67, 83)}
    assert start(folder)[0] is None


def test_an_urgent_event_that_its_row_denies_is_told(tmp_path: Path) -> None:
    fill(tmp_path / "data")
    with closing(sqlite3.connect(tmp_path / "data" / "journal.sqlite")) as db, db:
        db.execute("UPDATE groups SET urgent = 0 WHERE last = 100")
    reader = Reader(tmp_path / "data")
    assert len(reader.after(Lane.NORMAL, 50, 49)) == 49
    reader.close()
    assert "51 to 100" in (marked_damage(tmp_path / "data") or "")
