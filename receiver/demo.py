"""``make demo``: a receiver, a panel, an encrypted duress. Shows the frame's way, the event and the time of its ACK."""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from protocols import dc09
from receiver import clock, panel

_ACCOUNT = "1234"
_DURESS = f"#{_ACCOUNT}|1121 01 005"
_READY_SECONDS = 20.0
_SHOWN = ("account", "account_name", "protocol", "event_code", "event", "qualifier", "duress", "silent", "priority",
          "partition", "user", "encrypted", "sequence", "instructions", "panel_time", "received_at")  # fmt: skip


def _say(text: str = "") -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _configure(folder: Path) -> tuple[Path, dc09.Key]:
    """Write a configuration with one keyed account; the key is random and lives as long as the demo."""
    secret = os.urandom(16).hex()
    (folder / "accounts.csv").write_text(
        "account,name,key,instructions\n"
        f'{_ACCOUNT},"First Street bank, till 3",{secret},"Police first. No call to the premises."\n',
        "utf-8",
    )
    file = folder / "receiver.toml"
    file.write_text(
        '[[listeners]]\nhost = "127.0.0.1"\nport = 0\ntransport = "tcp"\n'
        '[accounts]\nfile = "accounts.csv"\n[http]\nport = 0\n[log]\nformat = "json"\n'
        '[[outputs]]\nname = "events"\ntype = "jsonl"\npath = "-"\n',
        "utf-8",
    )
    return file, dc09.Key.parse(secret)


@asynccontextmanager
async def _receiver(file: Path) -> AsyncIterator[tuple[int, asyncio.StreamReader]]:
    """Run the receiver as it runs in earnest; give its port and its standard output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "receiver", "serve", "--config", str(file), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        port: int = 0
        async with asyncio.timeout(_READY_SECONDS):
            while line := await process.stderr.readline():
                told: dict[str, Any] = json.loads(line) if line.startswith(b"{") else {"event": line.decode().strip()}
                port = told.get("port", port)
                if told["event"] == "receiver ready":
                    break
            else:
                raise RuntimeError(f"the receiver did not start: {told['event']}")
        yield port, process.stdout
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _show() -> bool:
    with tempfile.TemporaryDirectory(prefix="dc09-demo-") as folder:
        file, key = _configure(Path(folder))
        async with _receiver(file) as (port, events):
            _say(f"A receiver listens on 127.0.0.1 port {port}; account {_ACCOUNT} has an AES-128 key.")
            _say(f"At till 3 somebody enters the duress code. The panel sends {_DURESS!r}, encrypted:")
            orders = panel.Orders("127.0.0.1", port, _ACCOUNT, "ADM-CID", _DURESS, key)
            answers: list[panel.Answer] = []
            await panel.report(orders, answers.append)
            answer = answers[0]
            if answer.verdict != "ACK" or answer.reply is None:
                _say(f"  the answer was {answer.verdict}")
                return False
            _say(f"\n  {answer.verdict} after {answer.seconds * 1000:.2f} ms, with the signal on disk:")
            _say(f"  {answer.reply.decode('latin-1')!a}\n\nWhat the output was handed:")
            began = clock.monotonic()
            async with asyncio.timeout(_READY_SECONDS):
                event = json.loads(await events.readline())
            _say(f"  {event['type']}  id {event['id']}  source {event['source']}")
            for name in _SHOWN:
                _say(f"  {name:<14} {event['data'][name]}")
            _say(f"\n(read {max(0.0, clock.monotonic() - began) * 1000:.1f} ms after the ACK)")
    return True


def main() -> None:
    """Run the demo; exit 0 when the duress arrived."""
    sys.exit(0 if asyncio.run(_show()) else 1)


if __name__ == "__main__":
    main()
