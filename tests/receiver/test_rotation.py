"""Keys in rotation: both work, then one, and somebody is told of who still uses the old one."""

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from fuzz.single import handle_one
from protocols import dc09
from protocols.errors import Undecryptable
from receiver import accounts, clock, register, rotation
from receiver.accounts import Account, Accounts, OldKey
from receiver.config import ClockSettings
from receiver.errors import ConfigError
from receiver.pipeline import Pipeline
from receiver.rotation import KeyWatch, Rotation, Use, Used
from receiver.telemetry import Telemetry
from receiver.troubles import Trouble
from tests.receiver.test_pipeline import NOW, ROUTE, FakeJournal

OLD, NEW, OTHER = (dc09.Key(bytes([n]) * 16) for n in (1, 2, 3))
UNTIL = NOW + 7200
HEX = [bytes([n]).hex() * 16 for n in (1, 2, 3)]
ACCOUNT = Account("5678", key=NEW, accepts_plaintext=False, old_key=OldKey(OLD, UNTIL))


class Receiver:
    """A pipeline that knows one account, whose key is being rotated."""

    def __init__(self) -> None:
        self.now = NOW
        self.pipeline = Pipeline(
            Accounts({"5678": ACCOUNT}), ClockSettings(), FakeJournal(), Telemetry(), lambda: self.now * clock.SECOND_US  # type: ignore[arg-type]
        )  # fmt: skip

    def send(self, key: dc09.Key, sequence: str = "0001", token: str = "ADM-CID") -> bytes | None:
        raw = dc09.encode(
            token, sequence, dc09.Address(None, "0", "5678"), b"#5678|1130 01 001", key=key, panel_time=self.now
        )
        frame = dc09.split_datagram(raw)[0]
        assert isinstance(frame, dc09.Frame)
        return asyncio.run(handle_one(self.pipeline, frame, ROUTE))


def opens(reply: bytes | None, key: dc09.Key) -> bool:
    assert reply is not None
    found = dc09.split_datagram(reply)[0]
    assert isinstance(found, dc09.Frame)
    try:
        dc09.unseal(dc09.open_envelope(found), key)
    except Undecryptable:
        return False
    return True


def test_old_and_new_both_work_and_the_reply_is_sealed_with_the_one_that_opened_the_message() -> None:
    receiver = Receiver()
    for number, (key, other) in enumerate(((OLD, NEW), (NEW, OLD), (OLD, NEW))):
        for token in ("ADM-CID", "NULL"):
            reply = receiver.send(key, f"000{number + 1}", token)
            assert opens(reply, key)
            assert not opens(reply, other)
        assert receiver.pipeline.senders.key_of("5678") is key
    assert receiver.send(OTHER) is None


def test_the_old_key_ends_to_the_second() -> None:
    receiver = Receiver()
    receiver.now = UNTIL - 1
    assert receiver.send(OLD) is not None
    receiver.now = UNTIL
    assert receiver.send(OLD, "0002") is None
    assert receiver.send(NEW, "0003") is not None


def test_which_key_is_used_is_noted_and_told_an_hour_before_the_old_one_ends_and_when_it_has() -> None:
    state, second = Rotation(), clock.SECOND_US
    assert state.look(ACCOUNT, None, NOW * second) is None
    assert state.uses["5678"] == Use(UNTIL, Used.NONE, NOW * second)
    assert state.look(ACCOUNT, OLD, (NOW + 1) * second) is None
    assert state.uses["5678"] == Use(UNTIL, Used.OLD, (NOW + 1) * second)
    assert state.on_old((NOW + 1) * second) == 1
    told = [state.look(ACCOUNT, OLD, moment * second) for moment in (UNTIL - 3600, UNTIL - 3000, UNTIL, UNTIL + 5)]
    assert [bool(text) for text in told] == [True, False, True, False]
    assert "still uses its old key" in str(told[0])
    assert "its messages are refused" in str(told[2])
    assert state.on_old(UNTIL * second) == 0


def test_nothing_is_told_of_a_panel_that_has_its_new_key_and_a_restart_forgets_nothing() -> None:
    state, second = Rotation(), clock.SECOND_US
    state.look(ACCOUNT, NEW, NOW * second)
    state = Rotation(dict(state.uses))
    assert [state.look(ACCOUNT, None, moment * second) for moment in (UNTIL - 10, UNTIL)] == [None, None]
    assert [use.used for use in state.uses.values()] == [Used.NEW]
    another = replace(ACCOUNT, old_key=OldKey(OTHER, UNTIL + 9999))
    state.look(another, None, UNTIL * second)
    assert [use.used for use in state.uses.values()] == [Used.NONE]  # the next rotation begins anew
    state.forget(state.over([]))
    assert state.uses == {}


def test_a_large_rotation_is_looked_at_in_turn(tmp_path: Path) -> None:
    rows = {f"{n:04}": replace(ACCOUNT, account=f"{n:04}") for n in range(2500)}
    told: list[Trouble] = []
    watch = KeyWatch(tmp_path, lambda: Accounts(rows), lambda _: None, told.append)
    found = Accounts(rows)
    watch._accounts = lambda: found
    asyncio.run(watch.renew())
    sizes = []
    for _ in range(4):
        watch.look((UNTIL - 10) * clock.SECOND_US)
        sizes.append(len(watch.rotation.uses))
    assert sizes == [1000, 2000, 2500, 2500]
    assert {trouble.reason for trouble in told} == {"old-key-in-use"}
    assert sorted(str(trouble.account) for trouble in told) == list(rows)


@pytest.mark.parametrize("text", ["", "[]", '{"1": 5}', '{"1": [1, "blue", 2, 3]}'])
def test_a_file_that_is_not_ours_is_nothing_known(tmp_path: Path, text: str) -> None:
    (tmp_path / "old-keys.json").write_text(text, "utf-8")
    assert rotation.read(tmp_path) == {}


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        (f"{HEX[1]},{HEX[0]},2026-11-23T14:00:00Z", ""),
        (f"{HEX[1]},{HEX[0]},", "belong together"),
        (f"{HEX[1]},,2026-11-23T14:00:00Z", "belong together"),
        (f",{HEX[0]},2026-11-23T14:00:00Z", "belong together"),
        (f"{HEX[1]},{HEX[0]},soon", "old_key_until is 'soon'"),
        (f"{HEX[1]},short,2026-11-23T14:00:00Z", "a key is"),
        (f"{HEX[1]},2026-11-23T14:00:00Z,{HEX[0]}", "a key is"),  # columns the wrong way round: the key is not shown
    ],
)
def test_an_old_key_needs_an_end_and_a_successor(tmp_path: Path, row: str, wanted: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text(f"account,key,old_key,old_key_until\n1234,{row}\n", "utf-8")
    if not wanted:
        assert accounts.read_csv(file)["1234"].old_key == OldKey(OLD, 1_795_442_400)
        return
    with pytest.raises(ConfigError) as caught:
        accounts.read_csv(file)
    assert wanted in str(caught.value)
    assert HEX[0] not in str(caught.value)


def test_a_rotation_never_cuts_off_a_panel_by_accident() -> None:
    row = {"account": "1234", "key": HEX[0]}
    once = register.rotated(row, "1234", HEX[1], 3600, False, NOW * clock.SECOND_US)
    assert (once["key"], once["old_key"]) == (HEX[1], HEX[0])
    with pytest.raises(ConfigError, match="is being rotated already"):
        register.rotated(once, "1234", HEX[2], 3600, False, NOW * clock.SECOND_US)
    assert register.rotated(once, "1234", HEX[2], 3600, True, NOW * clock.SECOND_US)["old_key"] == HEX[1]
    assert register.rotated(once, "1234", HEX[2], 3600, False, (NOW + 3600) * clock.SECOND_US)["old_key"] == HEX[1]
    now = register.rotated(row, "1234", HEX[1], 0, False, NOW * clock.SECOND_US)
    assert (now["key"], now["old_key"], now["old_key_until"]) == (HEX[1], "", "")
    longer = register.prolonged(once, "1234", 7200, NOW * clock.SECOND_US)
    assert longer["old_key_until"] > once["old_key_until"]
    assert register.prolonged(once, "1234", 0, NOW * clock.SECOND_US)["old_key"] == ""
    for row_of, sentence in ((None, "there is no account"), (row, "is not being rotated")):
        with pytest.raises(ConfigError, match=sentence):
            register.prolonged(row_of, "1234", 60, 0)
    for wrong, sentence in ((None, "there is no account"), ({"account": "1"}, "no key of its own"), (row, "is the one")):
        with pytest.raises(ConfigError, match=sentence):
            register.rotated(wrong, "1234", HEX[0], 3600, False, 0)
