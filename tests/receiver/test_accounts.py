"""The account register."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from protocols.dc09 import Key
from receiver import account_file, accounts, clock
from receiver.errors import ConfigError
from receiver.intervals import parse
from receiver.tables import Table

SECRET = "00112233445566778899AABBCCDDEEFF"


def read(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> Table[accounts.Account]:
    file = tmp_path / "accounts.csv"
    file.write_text(text, "utf-8")
    return accounts.read_csv(file, environment or {})


def mistakes(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_every_column_is_read(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "\ufeffaccount,name,key,plaintext,supervision_seconds,time_zone,dialect,site,instructions\n"
        f'ab12,"Bank, till 3",{SECRET},accept,90,Europe/Vilnius,Ajax,Main street,Police first\n\n'
        "000,,,,,,,,\n",
    )
    account = found["AB12"]
    assert (account.account, account.name, account.site, account.instructions) == (
        "ab12",
        "Bank, till 3",
        "Main street",
        "Police first",
    )
    assert (account.supervision_seconds, account.dialect, account.accepts_plaintext) == (90, "ajax", True)
    assert account.key is not None
    assert account.key.bits == 128
    assert account.to_utc(1_700_000_000) == 1_700_000_000 - 2 * 3600
    assert found["000"] == accounts.Account("000")
    assert found["000"].to_utc(5) == 5


def test_a_key_refuses_plaintext_unless_told_otherwise(tmp_path: Path) -> None:
    found = read(tmp_path, f"account,key,plaintext\n1111,{SECRET},\n2222,,\n3333,{SECRET},accept\n4444,,refuse\n")
    assert [found[name].accepts_plaintext for name in ("1111", "2222", "3333", "4444")] == [False, True, True, False]


def test_a_key_may_stand_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(SECRET + "\n", "utf-8")
    found = read(tmp_path, "account,key,key_file\n1111,${K},\n2222,,k\n", {"K": SECRET})
    assert found["1111"].key == found["2222"].key is not None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name\nx\n", "line 1"),
        ("account,colour\n1,red\n", "unknown: colour"),
        ("account\n1234\n12 34\n", "line 3: account is '12 34'"),
        ("account\n1234\n1234\n", "line 3: account 1234 stands twice"),
        ("account\nab\nAB\n", "line 3: account AB stands twice"),
        (f"account,key\n1234,{SECRET}0\n", "line 2: a key is"),
        (f"account,key,key_file\n1234,{SECRET},x\n", "leave one out"),
        ("account,key,key_file\n1234,,absent\n", "cannot be read"),
        ("account,key\n1234,${ABSENT}\n", "ABSENT is not set"),
        ("account,plaintext\n1234,maybe\n", "plaintext is 'maybe'"),
        ("account,supervision_seconds\n1234,-3\n", "supervision_seconds is '-3'"),
        ("account,supervision_seconds\n1234,0\n", "supervision_seconds is '0'"),
        ("account,supervision_seconds\n1234,DP5\n", "supervision_seconds is 'DP5'"),
        ("account,time_zone\n1234,Mars/Base\n", "time_zone is 'Mars/Base'"),
        ("account,dialect\n1234,klingon\n", "known are ajax, auto"),
        ("account\n1234,extra\n", "more cells"),
    ],
)
def test_a_mistake_names_its_line(tmp_path: Path, text: str, wanted: str) -> None:
    assert wanted in mistakes(tmp_path, text)


def test_many_mistakes_are_told_in_part(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "account\n" + "no good\n" * 50)
    assert len(caught.value.mistakes) == 21
    assert "30 more mistakes" in caught.value.mistakes[-1]


def test_an_account_is_found_in_either_case_and_others_are_strangers() -> None:
    register = accounts.Accounts({"AB12": accounts.Account("ab12", "x")})
    assert register.find("ab12").name == register.find("AB12").name == "x"
    assert register.find("9999").registered is False
    assert len(register) == 1
    assert [account.account for account in register] == ["ab12"]


@pytest.mark.parametrize(
    ("unknown", "rows", "accepted"), [("", "", True), ("", "1\n", False), ("accept", "1\n", True), ("refuse", "", False)]
)
def test_strangers_are_accepted_only_while_nobody_is_registered_or_when_told(
    tmp_path: Path, unknown: str, rows: str, accepted: bool
) -> None:
    file = tmp_path / "a.csv"
    file.write_text("account\n" + rows, "utf-8")
    assert accounts.load(file, None, unknown).accept_unknown is accepted


def rewrite(file: Path, change: dict[str, dict[str, str] | None]) -> None:
    """Replace, add or (None) remove accounts."""

    def apply(rows: account_file.Rows) -> None:
        for account, row in change.items():
            if row is None:
                del rows[account]
            else:
                rows[account] = rows.get(account, {}) | row

    account_file.edit(file, apply)


def test_the_register_is_rewritten_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    rewrite(file, {"1234": {"account": "1234", "name": "a"}})
    rewrite(file, {"1234": {"account": "1234", "site": "b"}, "5678": {"account": "5678"}})
    found = accounts.read_csv(file)
    assert (found["1234"].name, found["1234"].site) == ("a", "b")
    before = file.read_bytes()
    with pytest.raises(ConfigError, match=r"^\S+/a\.csv as it would be: line 4: a key is"):
        rewrite(file, {"9999": {"account": "9999", "key": "short"}})
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    rewrite(file, {"1234": None})
    assert list(accounts.read_csv(file)) == ["5678"]
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"account;name\n1;a\n", "with commas, .* unknown: account;name"),
        (b"name\na\n", "account is missing"),
        (b"account,name\n1,Caf\xe9\n", 'it is not in UTF-8; save it as "CSV UTF-8"'),
        (b"account,key\n1,short\n", "a.csv line 2: a key is"),
    ],
)
def test_a_register_that_is_wrong_already_is_told_as_it_stands_and_not_changed(
    tmp_path: Path, content: bytes, wanted: str
) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=wanted):
        rewrite(file, {"2": {"account": "2"}})
    assert file.read_bytes() == content


@pytest.mark.parametrize("zone", ["Asia/Tokyo", "America/New_York"])
@pytest.mark.parametrize("moment", [-62_135_596_800, 253_402_300_799])
def test_a_moment_at_the_end_of_all_years_stays_one_that_can_be_written(zone: str, moment: int) -> None:
    assert clock.seconds_to_text(accounts.Account("1", time_zone=ZoneInfo(zone)).to_utc(moment))


@pytest.mark.parametrize("damage", [b"\xff\xfe", b'"' + b"x" * 200_000])
def test_a_file_that_is_no_table_of_text_cannot_be_read_wherever_that_shows(tmp_path: Path, damage: bytes) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"account,name\n" + b"".join(b"%06X,x\n" % number for number in range(10_000)) + b"1," + damage + b"\n")
    with pytest.raises(ConfigError, match="cannot be read"):
        accounts.read_csv(file)


def test_a_row_may_have_fewer_cells_than_the_header_and_spaces_around_them(tmp_path: Path) -> None:
    found = read(tmp_path, f"name,account,key,supervision_seconds\n a , 1111 , {SECRET} , 90 \nb,2222\n")
    assert found["1111"] == accounts.Account("1111", "a", Key.parse(SECRET), False, 90, supervision=parse("90"))
    assert found["2222"] == accounts.Account("2222", "b")
