"""What ``decode`` prints: one frame explained, with the verdict and the reply it would get."""

from typing import Any

from protocols import dc09
from protocols.errors import ProtocolError
from receiver import clock, events, payloads, policy, replies
from receiver.accounts import Account
from receiver.config import ClockSettings
from receiver.errors import PolicyError
from receiver.journal import Receipt

_NO_FRAME = {"crc_sent": None, "crc_computed": None, "crc_form": None, "length_sent": None, "length_actual": None}


def explain(raw: bytes, key: dc09.Key | None, now_us: int) -> dict[str, Any]:
    """Explain the first frame in ``raw``, as the receiver would see it from a known account with this key."""
    found = dc09.split_datagram(raw)
    told: dict[str, Any] = {
        "verdict": "silence",
        "reason": "not-dc09",
        "frame": _NO_FRAME,
        "message": None,
        "events": [],
        "reply": None,
    }
    if not found:
        return told
    if isinstance(found[0], dc09.Damage):
        (first, *_) = dc09.split_datagram(raw, over_cr=True)
        hint = "; fits with dialect eldes (CRC over the CR)" if isinstance(first, dc09.Frame) else ""
        said = f"{found[0].error}{hint}"
        return told | {"reason": found[0].error.reason, "explanation": said, "frame": _damage(found[0])}
    frame = found[0]
    crc = frame.raw[1:3].hex().upper() if frame.binary_crc else frame.raw[1:5].decode("ascii").upper()
    told["frame"] = {
        "crc_sent": crc, "crc_computed": crc, "crc_form": "binary" if frame.binary_crc else "hex",
        "length_sent": len(frame.body), "length_actual": len(frame.body),
    }  # fmt: skip
    return told | _judge(frame, key, now_us)


def _damage(damage: dc09.Damage) -> dict[str, Any]:
    form = None if damage.binary_crc is None else "binary" if damage.binary_crc else "hex"
    return {
        "crc_sent": damage.crc_sent, "crc_computed": damage.crc_computed, "crc_form": form,
        "length_sent": damage.length_sent, "length_actual": damage.length_actual,
    }  # fmt: skip


def _judge(frame: dc09.Frame, key: dc09.Key | None, now_us: int) -> dict[str, Any]:
    """Walk the pipeline's checks without a journal."""
    told: dict[str, Any] = {}
    envelope = None
    try:
        envelope = dc09.open_envelope(frame)
        told["message"] = _envelope(envelope)
        policy.check_sender(envelope)
        account = Account(envelope.address.account, key=key, accepts_plaintext=key is None)
        message = dc09.unseal(envelope, key)
        told["message"] = _message(message)
        policy.check_plaintext(envelope, account)
        policy.check_clock(message, account, ClockSettings(), now_us)
        policy.check_token(envelope)
        told["events"] = [_event(event) for event in payloads.decode(message)]
        reply = replies.ack(message, Receipt(0, repeat=False), key, now_us)
    except (ProtocolError, PolicyError) as refusal:
        error = policy.recognise_nak(refusal, frame.raw)
        verdict = policy.verdict(error)
        answer = None
        if envelope is not None and verdict is policy.Verdict.NAK:
            answer = replies.nak(envelope, now_us)
        elif envelope is not None and verdict is policy.Verdict.DUH:
            answer = replies.duh(envelope)
        return told | {
            "verdict": verdict.value,
            "reason": error.reason,
            "explanation": str(error),
            "reply": answer and answer.hex(),
        }
    return told | {"verdict": "ack", "reason": None, "reply": reply.hex()}


def _envelope(envelope: dc09.Envelope) -> dict[str, Any]:
    return {
        "token": envelope.token, "encrypted": envelope.encrypted, "sequence": envelope.sequence,
        "panel_receiver_number": envelope.address.receiver_number, "panel_line": envelope.address.line,
        "account": envelope.address.account, "data": None, "extended": [], "panel_time": None,
    }  # fmt: skip


def _message(message: dc09.Message) -> dict[str, Any]:
    extended = [
        [letter, "(withheld)" if letter == "K" else payloads.to_text(value)[0]] for letter, value in message.extended
    ]
    return _envelope(message.envelope) | {
        "data": payloads.to_text(message.data)[0],
        "extended": extended,
        "panel_time": None if message.panel_time is None else clock.seconds_to_text(message.panel_time),
    }


def _event(event: payloads.Event) -> dict[str, Any]:
    more: dict[str, Any] = {"block_account": event.block_account} if event.block_account else {}
    more |= {"modifiers": dict(event.modifiers)} if event.modifiers else {}
    return events.describe(event) | {"flags": list(event.flags)} | more
