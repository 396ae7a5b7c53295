"""An event that its target refuses for ever holds up nobody and is not lost: dead letters, by a real server."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from receiver.cli import main
from tests.wire.running import KEYED, PLAIN, Running, frame, wait_until
from tests.wire.test_outputs import Hook, hook, sequences, webhook

__all__ = ["hook"]


def command(*args: str) -> Result:
    """Run one command of the receiver's command line, in this process."""
    return CliRunner().invoke(main, args)


class Picky(Hook):
    """Refuses, with ``refusal`` (0: hangs up), every request that holds one of these sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: set[str] = set()
        self.refusal = 422

    def judge(self, body: bytes) -> int:
        told = json.loads(body)
        events = told if isinstance(told, list) else [told]
        return self.refusal if any(event["data"].get("sequence") in self.refuses for event in events) else self.answer


@pytest.fixture
def picky() -> Picky:
    return Picky()


@pytest.mark.parametrize("batch", [1, 20])
def test_poison_becomes_a_dead_letter_and_the_rest_goes_on(tmp_path: Path, picky: Picky, batch: int) -> None:
    picky.refuses = {"0003", "0005"}
    picky.start()
    with Running(tmp_path, outputs=webhook(picky, f"batch = {batch}\nmax_tries = 3")) as running:
        running.tcp(*[frame(f"{n:04d}") for n in range(1, 11)], replies=10)
        wait_until(lambda: running.metric("receiver_output_backlog", 'output="hook"') == 0, 20)
        assert running.metric("receiver_output_dead_letters", 'output="hook"') == 2
        assert _signals(picky) == [f"{n:04d}" for n in range(1, 11) if n not in (3, 5)]
        troubles = wait_until(lambda: running.events("receiver.trouble.v1"))
        assert troubles[0]["data"]["reason"] == "dead-letter"
        assert troubles[0]["data"]["output"] == "hook"
        told = command("outputs", "dead", "list", "hook", "--config", str(running.config))
        assert told.stdout.count("answered 422") == 2
        exported = command("outputs", "dead", "export", "hook", "--config", str(running.config)).stdout
        dead = [json.loads(line) for line in exported.splitlines()]
        assert sequences(dead) == ["0003", "0005"]
        assert [event["id"] for event in dead] == [
            event["id"] for event in running.export() if event["data"]["sequence"] in picky.refuses
        ]
        picky.refuses = {"0005"}
        asked = command("outputs", "dead", "replay", "hook", "--config", str(running.config))
        assert asked.exit_code == 0, asked.stderr
        wait_until(lambda: "0003" in _signals(picky))
        wait_until(lambda: running.metric("receiver_output_dead_letters", 'output="hook"') == 1)
        shown = command("journal", "show", "--config", str(running.config)).stdout
        assert shown.count("hook: sent ") >= 8
        assert "hook: refused at first, confirmed " in shown
        assert "hook: REFUSED " in shown
    picky.stop()


def _signals(server: Hook) -> list[str]:
    return sequences([event for event in server.events() if event["type"] == "receiver.signal.v1"])


def test_a_duress_never_goes_to_the_dead_letters_quietly(tmp_path: Path, picky: Picky) -> None:
    picky.refuses = {"0001", "0002"}
    picky.start()
    with Running(tmp_path, outputs=webhook(picky, "max_tries = 2")) as running:
        running.tcp(frame("0001", "1121 01 005"), frame("0002", "1121 01 006"), replies=2)
        wait_until(lambda: running.metric("receiver_output_dead_letters", 'output="hook"') == 2)
        troubles = wait_until(lambda: len(found := running.events("receiver.trouble.v1")) == 2 and found)
        assert all("DURESS" in event["data"]["text"] for event in troubles)
        assert running.log().count("ERROR   duress is a dead letter") == 2
    picky.stop()


@pytest.mark.parametrize("how", [500, 0])
def test_an_event_at_which_the_server_stumbles_each_time_is_laid_aside_once_others_are_taken(
    tmp_path: Path, picky: Picky, how: int
) -> None:
    """Its own mistake (500), or no answer at all: the connection ends."""
    picky.refuses, picky.refusal = {"0003"}, how
    picky.start()
    accounts = "account\nA000\nA001\nA002\n"
    with Running(
        tmp_path, outputs=webhook(picky, "batch = 20\nmax_tries = 3\ntroubles = false"), accounts=accounts
    ) as running:
        running.tcp(*[frame(f"{n:04d}", account=f"A{n % 3:03d}") for n in range(1, 11)], replies=10)
        wait_until(lambda: running.metric("receiver_output_backlog", 'output="hook"') == 0, 20)
        assert running.metric("receiver_output_dead_letters", 'output="hook"') == 1
        assert set(_signals(picky)) == {f"{n:04d}" for n in range(1, 11) if n != 3}
        for third in range(3):
            mine = [n for n in map(int, _signals(picky)) if n % 3 == third]
            assert mine == sorted(mine)
    picky.stop()


def test_an_outage_never_makes_a_dead_letter(tmp_path: Path, hook: Hook) -> None:
    hook.answer = 503
    with Running(tmp_path, outputs=webhook(hook, "max_tries = 1")) as running:
        running.tcp(frame("0001"), frame("0002"), replies=2)
        wait_until(lambda: running.metric("receiver_output_failures_total") >= 2)
        hook.answer = 401
        wait_until(lambda: running.metric("receiver_output_failures_total") >= 4, 30)
        assert running.metric("receiver_output_dead_letters") == 0
        hook.answer = 200
        wait_until(lambda: sequences(hook.events()) == ["0001", "0002"], 20)


def test_whoever_refuses_too_much_refuses_everything_and_the_output_waits(tmp_path: Path, picky: Picky) -> None:
    picky.refuses = {"0001", "0002", "0003"}
    picky.start()
    with Running(tmp_path, outputs=webhook(picky, "max_tries = 1\nmax_dead_letters = 2\ntroubles = false")) as running:
        running.tcp(*[frame(f"{n:04d}") for n in range(1, 5)], replies=4)
        wait_until(lambda: "2 dead letters are max_dead_letters" in running.log())
        assert running.metric("receiver_output_dead_letters") == 2
        assert not _signals(picky)
        picky.refuses = set()
        wait_until(lambda: _signals(picky) == ["0003", "0004"], 20)
    picky.stop()


def test_dead_letters_and_where_they_stand_outlive_a_kill(tmp_path: Path, picky: Picky) -> None:
    picky.refuses = {"0001"}
    picky.start()
    with Running(tmp_path, outputs=webhook(picky, "max_tries = 1")) as running:
        running.tcp(frame("0001"), frame("0002"), replies=2)
        wait_until(lambda: _signals(picky) == ["0002"])
        running.kill()
        picky.refuses = set()
        asked = command("outputs", "dead", "replay", "hook", "--config", str(running.config))
        assert asked.exit_code == 0, asked.stderr
        running.start()
        wait_until(lambda: "0001" in _signals(picky))
        wait_until(lambda: running.metric("receiver_output_dead_letters", 'output="hook"') == 0)
        assert _signals(picky).count("0001") == 1
    picky.stop()


def test_a_test_event_cannot_be_taken_for_an_alarm(tmp_path: Path, hook: Hook) -> None:
    with Running(tmp_path, outputs=webhook(hook)) as running:
        done = command("outputs", "test", "hook", "--config", str(running.config))
        assert (done.exit_code, hook.events()[0]["type"]) == (0, "receiver.signal.v1"), done.stderr
        data = hook.events()[0]["data"]
        assert (data["event_code"], data["priority"], data["duress"]) == ("602", 9, False)
        assert {"on-test", "drill"} <= set(data["flags"])
        assert "the event was taken after" in done.stderr
        hook.answer = 422
        done = command("outputs", "test", "hook", "--config", str(running.config))
        assert (done.exit_code, "refused the event" in done.stderr) == (1, True)
        hook.stop()
        done = command("outputs", "test", "hook", "--config", str(running.config))
        assert (done.exit_code, "could not be handed over" in done.stderr) == (1, True)
        done = command("outputs", "test", "nobody", "--config", str(running.config))
        assert (done.exit_code, "there is no output nobody; the configuration has hook, events" in done.stderr) == (2, True)
        done = command("outputs", "test", "hook", "--account", "12|34", "--config", str(running.config))
        assert (done.exit_code, "--account is '12|34'; an account has 1 to 16 letters" in done.stderr) == (2, True)


def test_sites_categories_and_path_events_can_be_left_out(tmp_path: Path) -> None:
    accounts = f"account,supervision_seconds,site\n{PLAIN},1,north\n{KEYED},,south\n"
    settings = {
        "site": 'sites = ["north"]\npaths = "omit"', "kind": 'categories = ["panic/duress"]\ntroubles = false',
        "path": 'min_priority = 1\ntroubles = false\npaths = "send"',
    }  # fmt: skip
    outputs = "".join(
        f'[[outputs]]\nname = "{name}"\ntype = "jsonl"\npath = "{name}.jsonl"\n{more}\n' for name, more in settings.items()
    )
    with Running(tmp_path, outputs=outputs, accounts=accounts) as running:
        running.tcp(frame("0001", "1121 01 005", KEYED), frame("0002"), frame("0003", account=KEYED), replies=3)
        wait_until(lambda: running.events("receiver.path.v1", tmp_path / "path.jsonl"))
        wait_until(lambda: running.metric("receiver_output_backlog") == 0)

        def found(name: str) -> list[str]:
            file = tmp_path / f"{name}.jsonl"
            return sorted(
                [
                    *sequences(running.events(file=file)),
                    *[e["data"]["state"] for e in running.events("receiver.path.v1", file)],
                ]
            )

        assert found("site") == ["0002"]
        assert found("kind") == ["0001"]
        assert found("path") == ["0001", "lost"]
        shown = command("journal", "show", "--config", str(running.config)).stdout
        assert "site: left out by its filter" in shown
