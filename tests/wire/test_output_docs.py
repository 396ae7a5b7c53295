"""The pages of the outputs: their examples are configurations, and what comes out is what the descriptions say."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from receiver.cli import main
from receiver.config import OUTPUT_TYPES
from tests.wire.certificates import Authority
from tests.wire.running import KEY, KEYED, PLAIN, SECRET, Running, frame, wait_until

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGES = sorted((DOCS / "outputs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_example_is_a_configuration(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_PASSWORD", "secret")
    addresses = {"redis.url": "redis://:p@h/0", "amqp.url": "amqp://u:p@h/", "postgresql.dsn": "postgresql://u:p@h/d"}
    examples = re.findall(r"```toml\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert examples
    for example in examples:
        for name in re.findall(r'_file = "([^"]+)"', example):
            (tmp_path / name).write_text(addresses.get(name, "secret"), "utf-8")
        Authority(tmp_path, "ca")  # the ca.pem of the examples
        (tmp_path / "receiver.toml").write_text("[[listeners]]\n" + example, "utf-8")
        done = CliRunner().invoke(main, ["check-config", str(tmp_path / "receiver.toml")])
        assert done.exit_code == 0, done.output
        assert "output " in done.output


def test_every_type_has_a_page() -> None:
    assert {page.stem for page in PAGES} >= set(OUTPUT_TYPES)
    table = (DOCS / "outputs" / "README.md").read_text("utf-8")
    assert all(f"[{kind}]({kind}.md)" in table for kind in OUTPUT_TYPES)


def test_what_comes_out_fits_the_asyncapi_description_and_its_schemas(tmp_path: Path) -> None:
    described: dict[str, Any] = yaml.safe_load((DOCS / "reference" / "asyncapi.yaml").read_text("utf-8"))
    messages = described["components"]["messages"]
    schemas = {
        told["name"]: json.loads((DOCS / "reference" / told["payload"]["$ref"]).read_text("utf-8"))
        for told in messages.values()
    }
    for channel in described["channels"].values():
        assert [told["$ref"].rpartition("/")[2] for told in channel["messages"].values()] == list(messages)
    accounts = f"account,supervision_seconds,key\n{PLAIN},1,\n{KEYED},,{SECRET}\n"
    with Running(tmp_path, accounts=accounts) as running:
        running.tcp(frame("0001", "1121 01 005"), frame("0002", account="9999"), frame("0003", "what is this"), seconds=1)
        running.tcp(frame("0004", "1602 00 000", KEYED, KEY))
        wait_until(lambda: running.events("receiver.path.v1"))
        events = [json.loads(line) for line in running.events_file.read_text("utf-8").splitlines()]
    assert {event["type"] for event in events} == set(schemas)
    for event in events:
        jsonschema.validate(event, schemas[event["type"]])
