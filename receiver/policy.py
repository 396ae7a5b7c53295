"""What we answer, and why: one table, and the checks that lead into it, in the contract's order (its section 5).

DC-09's text on these answers is largely not public; where it is silent we follow the reference library's behaviour and
the test plan of the 2007 edition (C.1.3, C.2.3), as ``docs/protocols/dc09.md`` tells row by row.
"""

from enum import Enum

from protocols.dc09 import KNOWN_TOKENS, RECEIVER_TOKENS, Envelope, Key, Message, unseal
from protocols.errors import BadCrc, BodyError, EnvelopeError, FramingError, ProtocolError, Undecryptable
from receiver import dialects
from receiver.accounts import Account, Accounts, OldKey
from receiver.clock import SECOND_US
from receiver.clockwatch import ClockWatch
from receiver.config import ClockSettings
from receiver.errors import (
    FromReceiver,
    JournalUnavailable,
    PlaintextRefused,
    ReceiverError,
    StaleTimestamp,
    UnknownAccount,
    UnknownToken,
)


class Verdict(Enum):
    """What a frame is answered with; silence is no bytes at all."""

    ACK = "ack"
    NAK = "nak"
    DUH = "duh"
    SILENCE = "silence"


VERDICTS: dict[type[Exception], Verdict] = {
    FramingError: Verdict.SILENCE,  # cannot know who sent it; 2007 C.2.3.5 for a bad CRC
    EnvelopeError: Verdict.SILENCE,  # cannot know whom to answer
    BodyError: Verdict.SILENCE,
    FromReceiver: Verdict.SILENCE,  # an answer to an answer would never end
    Undecryptable: Verdict.SILENCE,
    PlaintextRefused: Verdict.SILENCE,  # a substituted panel looks like this
    StaleTimestamp: Verdict.NAK,  # our time is in the reply; 2013 clause 5.5.3.2
    UnknownAccount: Verdict.SILENCE,  # an ACK would be a lie; silence makes the panel fail over
    UnknownToken: Verdict.DUH,  # envelope understood, format not; 2013 clause 5.5.3.3
    JournalUnavailable: Verdict.SILENCE,  # let the sender retry or fail over
}

TROUBLES: dict[type[Exception], str] = {
    Undecryptable: "undecryptable",
    PlaintextRefused: "plaintext-refused",
    UnknownAccount: "unknown-account",
    UnknownToken: "unknown-token",
    FromReceiver: "reflected-reply",
}
"""Refusals that an operator is told of, with the reason of the trouble event."""
_QUARTER_SECONDS, _MOST_QUARTERS = 900, 56  # zones are whole quarters of an hour, up to 14 h from UTC
_NAK_HEADER = b'"NAK"0000R0L0A0['


def verdict(error: ProtocolError | ReceiverError) -> Verdict:
    """Look an error up; the most specific row wins.

    Raises:
        KeyError: the error has no row, which is our bug.
    """
    for cls in type(error).__mro__:
        if cls in VERDICTS:
            return VERDICTS[cls]
    raise KeyError(f"{type(error).__name__} has no verdict")


def check(
    message: Message, account: Account, accounts: Accounts, settings: ClockSettings, now_us: int,
    watch: ClockWatch | None = None, steady_us: int = 0,
) -> bool:  # fmt: skip
    """Refuse what is not to be accepted, in the contract's order; return whether our own clock is in doubt.

    A check is called only where there is something to be checked: nearly every message passes them all.

    Raises:
        PlaintextRefused, StaleTimestamp, UnknownAccount, UnknownToken: as the checks below.
    """
    envelope, suspect = message.envelope, False
    if envelope.encrypted:
        suspect = check_clock(message, account, settings, now_us, watch, steady_us)
    elif not account.accepts_plaintext:
        check_plaintext(envelope, account)
    if not account.registered:
        check_account(envelope, account, accounts)
    if envelope.token not in KNOWN_TOKENS:
        check_token(envelope)
    return suspect


def check_sender(envelope: Envelope, account: Account | None = None) -> None:
    """Refuse what only a receiver sends, and a CRC over the closing CR where the account's dialect does not allow it.

    Raises:
        BadCrc: the CRC fits only together with the CR, and no dialect says so.
        FromReceiver: the token is ACK, NAK, DUH or RSP.
    """
    if envelope.frame.over_cr and not (account and dialects.crc_may_cover_cr(account.dialect)):
        raise BadCrc(
            f"the CRC does not fit the bytes it covers; account {envelope.address.account} fits with dialect eldes "
            "(CRC over the CR)"
        )
    if envelope.token in RECEIVER_TOKENS:
        raise FromReceiver(f"{envelope.token} is sent by receivers only")


def choose_key(envelope: Envelope, key: Key | None, old: OldKey, now_us: int) -> Key | None:
    """Return which key opens a message while the account's is rotated; the reply is sealed with it too."""
    if not envelope.encrypted or now_us >= old.until * SECOND_US or _opens(envelope, key):
        return key
    return old.key if _opens(envelope, old.key) else key


def _opens(envelope: Envelope, key: Key | None) -> bool:
    try:
        unseal(envelope, key)
    except Undecryptable:
        return False
    return True


def recognise_nak(error: ProtocolError | ReceiverError, raw: bytes) -> ProtocolError | ReceiverError:
    """Name a reflected NAK as what it is: its header has no account, so it cannot be read as a panel's."""
    if isinstance(error, EnvelopeError) and _NAK_HEADER in raw[:32]:
        return FromReceiver("NAK is sent by receivers only")
    return error


def check_plaintext(envelope: Envelope, account: Account) -> None:
    """Refuse a clear message of an account that has a key.

    Raises:
        PlaintextRefused: the account has a key and does not accept plaintext.
    """
    if not envelope.encrypted and not account.accepts_plaintext:
        raise PlaintextRefused(f"account {envelope.address.account} has a key, and this message came in clear")


def check_clock(
    message: Message, account: Account, settings: ClockSettings, now_us: int,
    watch: ClockWatch | None = None, steady_us: int = 0,
) -> bool:  # fmt: skip
    """Refuse an encrypted message outside the window; both ends belong to it. Clear stamps are not judged (clause 5.5.3.2).

    Return whether it is accepted only because ``watch`` has evidence that our own clock is wrong.

    Raises:
        StaleTimestamp: the stamp is too old or too far ahead.
    """
    if not message.envelope.encrypted or message.panel_time is None:
        return False
    stamp = message.panel_time if account.time_zone is None else account.to_utc(message.panel_time)
    if watch is not None and account.key is not None:
        watch.heard(account.account, stamp * SECOND_US, steady_us)
    age = now_us / SECOND_US - stamp
    if age > settings.behind_seconds + 0.999 or -age > settings.ahead_seconds:  # a stamp has whole seconds
        if watch is not None and watch.forgives(stamp * SECOND_US, now_us, steady_us):
            return True
        side = f"{age:.0f} s old" if age > 0 else f"{-age:.0f} s ahead"
        raise StaleTimestamp(
            f"the time stamp is {side}; accepted are {settings.behind_seconds} s behind to {settings.ahead_seconds} s ahead"
            + _local_time(now_us / SECOND_US - message.panel_time, settings, account)
        )
    return False


def _local_time(age: float, settings: ClockSettings, account: Account) -> str:
    """Say that a stale stamp, so old if it is UTC, fits another zone: off by whole quarters of an hour, as all zones are."""
    quarters = round(-age / _QUARTER_SECONDS)
    off = age + quarters * _QUARTER_SECONDS
    if abs(quarters) > _MOST_QUARTERS or not -settings.ahead_seconds <= off <= settings.behind_seconds + 0.999:
        return ""
    side = "ahead of" if quarters > 0 else "behind"
    zone = f"{abs(quarters) / 4:g} h {side} UTC" if quarters else "UTC"
    if account.time_zone is None:
        return f"; fits a panel whose clock is local time, {zone}: give the account its time_zone"
    return (
        f"; fits a panel whose clock is {zone}, which {account.time_zone} is not now: look at summer time at the panel, "
        "or at time_zone in the register"
    )


def check_account(envelope: Envelope, account: Account, accounts: Accounts) -> None:
    """Refuse a stranger, unless strangers are welcome.

    Raises:
        UnknownAccount: the account is not registered.
    """
    if account.registered or accounts.accept_unknown:
        return
    name, near = envelope.address.account, accounts.unpadded(envelope.address.account)
    hint = f"; fits account {near.account} with dialect padded" if near is not None and name[:1] == "0" else ""
    raise UnknownAccount(f"account {name} is not registered{hint}")


def check_token(envelope: Envelope) -> None:
    """Refuse a token that no table of the standards holds; unknown event codes are not refused.

    Raises:
        UnknownToken: DC-07 and DC-09 do not know it.
    """
    if envelope.token not in KNOWN_TOKENS:
        raise UnknownToken(f"token {envelope.token} is in no table of the standards")
