"""The simulated panel."""

import asyncio

import pytest

from protocols import dc09
from receiver import panel


async def _receiver(port: int, frames_a_connection: int) -> asyncio.Server:
    """Answer so many frames of each connection, then close it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer, answered = dc09.Framer(), 0
        while answered < frames_a_connection and (data := await reader.read(1000)):
            for found in framer.feed(data):
                assert isinstance(found, dc09.Frame)
                envelope = dc09.open_envelope(found)
                writer.write(dc09.encode("ACK", envelope.sequence, envelope.address, b""))
                answered += 1
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", port)


@pytest.mark.parametrize(("retry", "wanted"), [(0, ["ACK", "silence", "ACK"]), (3, ["ACK", "ACK", "ACK"])])
def test_a_receiver_that_goes_away_is_silence_and_is_called_again(
    retry: int, wanted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel, "_AWAY_SECONDS", 0.01)
    verdicts: list[str] = []

    async def story() -> None:
        told: asyncio.Queue[str] = asyncio.Queue()
        servers = [await _receiver(0, 1)]
        port = servers[0].sockets[0].getsockname()[1]

        orders = panel.Orders("127.0.0.1", port, "1234", "ADM-CID", "#1234|1602 00 000", count=3, retry=retry, rate=5)
        async with asyncio.TaskGroup() as group:
            group.create_task(panel.report(orders, lambda answer: told.put_nowait(answer.verdict)))
            verdicts.append(await told.get())
            servers[0].close()
            if retry:
                await asyncio.sleep(0.21)  # the second message finds nobody at first
            else:
                verdicts.append(await told.get())
            servers.append(await _receiver(port, 9))
            verdicts.extend([await told.get() for _ in range(3 - len(verdicts))])
        servers[1].close()

    asyncio.run(story())
    assert verdicts == wanted


def test_a_receiver_that_was_never_there_is_told_as_such() -> None:
    orders = panel.Orders("127.0.0.1", 1, "1234", "ADM-CID", "")
    with pytest.raises(ExceptionGroup):
        asyncio.run(panel.report(orders, lambda _: None))
