"""Settings: defaults, mistakes a person can act on, secrets, the environment."""

from pathlib import Path

import pytest

from receiver import config
from receiver.config import JsonlSettings, Secret, WebhookSettings
from receiver.errors import ConfigError


def mistakes(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> list[str]:
    file = tmp_path / "receiver.toml"
    file.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        config.load(file, environment or {})
    return list(caught.value.mistakes)


def loaded(tmp_path: Path, text: str, environment: dict[str, str] | None = None) -> config.Settings:
    file = tmp_path / "receiver.toml"
    file.write_text(text, "utf-8")
    return config.load(file, environment or {})


def test_without_a_file_the_defaults_are_those_of_the_contract() -> None:
    settings = config.load(None, {})
    (listener,) = settings.listeners
    assert (listener.name, listener.transport, listener.host, listener.port, listener.line) == (
        "main",
        "both",
        "0.0.0.0",
        12128,
        "1",
    )
    assert (listener.max_connections, listener.max_connections_per_source, listener.close_after_ack) == (20000, 2000, False)
    assert listener.first_frame_timeout_seconds == 30
    assert (listener.frame_timeout_seconds, listener.idle_timeout_seconds) == (10, 3600)
    assert (settings.receiver.number, settings.receiver.data_dir) == ("1", Path("data"))
    assert (settings.clock.behind_seconds, settings.clock.ahead_seconds) == (40, 20)
    journal = settings.journal
    assert (journal.repeat_window_seconds, journal.max_backlog, journal.retention_days) == (
        600,
        1000000,
        90,
    )
    assert (settings.http.host, settings.http.port) == ("127.0.0.1", 8080)
    assert settings.outputs == (JsonlSettings(),)
    assert JsonlSettings().path == "-"


def test_a_variable_takes_nothing_from_the_defaults_of_a_start_without_a_file() -> None:
    assert config.load(None, {"DC09_HTTP_PORT": "9000"}).outputs == (JsonlSettings(),)
    assert config.load(None, {"DC09_OUTPUTS_0_PATH": "e"}).outputs == (JsonlSettings(path="e"),)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = loaded(tmp_path, '[accounts]\nfile = "a.csv"\n[[outputs]]\npath = "e.jsonl"\n')
    assert settings.accounts.file == tmp_path / "a.csv"
    assert settings.receiver.data_dir == tmp_path / "data"
    assert settings.outputs == (JsonlSettings(path=str(tmp_path / "e.jsonl")),)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    text = (
        '[receiver]\nnumber = "XYZ"\nnummer = 3\n[[listeners]]\nport = 99999\n'
        'transport = "quic"\n[http]\nport = "80"\n[wrong]\n'
    )
    found = mistakes(tmp_path, text)
    assert len(found) == 6
    for wanted in (
        "number is 'XYZ'",
        "no setting 'nummer'",
        "port is 99999",
        "transport is 'quic'",
        "a whole number",
        "'wrong'",
    ):
        assert sum(wanted in mistake for mistake in found) == 1, (wanted, found)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[receiver\n", "line 1"),
        ("receiver = 3\n", "must be a table"),
        ("outputs = 3\n", "[[outputs]] tables"),
        ("listeners = []\n", "hear nobody"),
        ('[[outputs]]\ntype = "pigeon"\n', "type is 'pigeon'"),
        ('[[outputs]]\ntype = "webhook"\n', "needs an http"),
        ('[[outputs]]\n[[outputs]]\n', "two [[outputs]]"),
        ("[http]\nport = true\n", "a whole number"),
        ("[journal]\nretention_days = 0\n", "0.01 or more"),
        ('[accounts]\nfile = 3\n', "a path"),
        ('[[outputs]]\naccounts = "1234"\n', "a list of texts"),
        ('[[outputs]]\nlanes = ["slow"]\n', "lanes is 'slow'"),
        ('[[listeners]]\ndialect = "klingon"\n', "[[listeners]] 1 dialect is 'klingon'; known are ajax"),
        ('[[listeners]]\ndialect = "ajax+padded"\n', "padded can be an account's dialect only"),
        ('[[listeners]]\ntime_zone = "Mars"\n', "time_zone is 'Mars'; it must be a name such as"),
        ('[accounts]\ndefault_key = "${NOT_SET}"\n', "NOT_SET is not set"),
        ('[accounts]\ndefault_key_file = "absent"\n', "cannot be read"),
        ('[accounts]\ndefault_key = "${EMPTY}"\n', "EMPTY is empty"),
        ('[accounts]\ndefault_key_file = "receiver.toml.empty"\n', "default_key_file is empty"),
        ('[accounts]\ndefault_key_file = "a\\u0000b"\n', "is no path"),
        ('[accounts]\nfile = "a\\u0000b"\n', "must be a path"),
        ('[[outputs]]\ntype = "webhook"\nurl = "http://127.0.0.1/"\nsecret = "my${HALF}"\n', "${HALF} is only a part of it"),
        ('[[listeners]]\nhost = ""\n', "not empty"),
        ('[http]\nhost = ""\n', "not empty"),
        ('[[outputs]]\ntype = "surgard"\nhost = ""\n', "not empty"),
        ('[[outputs]]\npath = ""\n', "the path of a file, or -"),
        ("[http]\nport = " + "9" * 5000, "a number in it is too long"),
        ("x = " + "[" * 5000, "too deep"),
        ('[accounts]\ndefault_key = "x"\ndefault_key_file = "y"\n', "leave one out"),
    ],
)  # fmt: skip
def test_a_mistake_has_a_sentence_of_its_own(tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "receiver.toml.empty").write_text("\n", "utf-8")
    (mistake,) = mistakes(tmp_path, text, {"EMPTY": "", "HALF": "x"})
    assert wanted in mistake


def test_files_of_an_editor_that_marks_utf_8_are_read(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("x" * 16 + "\r\n", "utf-8-sig")
    (tmp_path / "receiver.toml").write_text('[accounts]\r\ndefault_key_file = "key"\r\n', "utf-8-sig")
    assert config.load(tmp_path / "receiver.toml", {}).accounts.default_key.text == "x" * 16


def test_a_file_that_is_not_there_is_a_clear_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no file"):
        config.load(tmp_path / "absent.toml", {})


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    environment = {
        "DC09_HTTP_PORT": "9000", "DC09_LISTENERS_0_PORT": "4000", "DC09_LISTENERS_1_NAME": "second",
        "DC09_LISTENERS_0_CLOSE_AFTER_ACK": "true", "DC09_OUTPUTS_0_ACCOUNTS": "1234, 5678",
        "DC09_JOURNAL_RETENTION_DAYS": "1.5", "DC09_ACCOUNTS_DEFAULT_KEY": "x" * 16, "PATH": "/bin",
    }  # fmt: skip
    settings = loaded(tmp_path, "[http]\nport = 1\n[[listeners]]\nport = 2\n[[outputs]]\n", environment)
    assert settings.http.port == 9000
    assert [(listener.name, listener.port) for listener in settings.listeners] == [("main", 4000), ("second", 12128)]
    assert settings.listeners[0].close_after_ack is True
    assert settings.outputs[0].accounts == ("1234", "5678")
    assert settings.journal.retention_days == 1.5
    assert settings.accounts.default_key.text == "x" * 16


@pytest.mark.parametrize("name", ["DC09_NONSENSE", "DC09_LISTENERS_X_PORT", "DC09_LISTENERS_7_PORT"])
def test_a_variable_that_names_no_setting_is_a_mistake(tmp_path: Path, name: str) -> None:
    (mistake,) = mistakes(tmp_path, "[[listeners]]\n", {name: "1"})
    assert name in mistake


def test_a_value_of_the_environment_is_checked_like_any_other(tmp_path: Path) -> None:
    environment = {"DC09_HTTP_PORT": "eighty", "DC09_HTTP_PRT": "1", "DC09_ACCOUNTS_DEFAULT_KEY": "${NOT_SET}"}
    assert mistakes(tmp_path, "", environment) == [
        "[accounts] default_key (environment variable DC09_ACCOUNTS_DEFAULT_KEY): "
        "the environment variable NOT_SET is not set",
        "[http] port (environment variable DC09_HTTP_PORT) is 'eighty'; it must be a whole number",
        "[http] (environment variable DC09_HTTP_PRT) has no setting 'prt'; it has host, port",
    ]


def test_a_file_that_is_not_utf_8_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "receiver.toml"
    file.write_bytes(b'[receiver]\nnumber = "1"  # \xe9\n')
    with pytest.raises(ConfigError, match=r"not in UTF-8 \(at line 2\)"):
        config.load(file, {})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('[[listeners]]\nname = "a"\n[[listeners]]\nname = "b"\ntransport = "udp"\n', ["b both want UDP port 12128"]),
        ('[[listeners]]\nname = "a"\ntransport = "tcp"\n[[listeners]]\nname = "b"\ntransport = "udp"\n', []),
        ('[[listeners]]\nport = 8080\n', ["main and [http] both want TCP port 8080 of 0.0.0.0"]),
        ('[[listeners]]\nport = 8080\nhost = "192.0.2.1"\n', []),
        ('[[listeners]]\nhost = "::"\n[[outputs]]\ntype = "surgard"\nport = 12128\n', ["main and [[outputs]] events both"]),
        ('[[listeners]]\nhost = "::1"\n[[outputs]]\ntype = "surgard"\nport = 12128\nhost = "0.0.0.0"\n', []),
        ('[[outputs]]\ntype = "surgard"\nport = 12128\nmode = "client"\n', []),
        ('[[listeners]]\nport = 0\n[http]\nport = 0\n', []),
    ],
)  # fmt: skip
def test_two_parts_that_want_one_port_are_told_before_a_start(tmp_path: Path, text: str, wanted: list[str]) -> None:
    file = tmp_path / "receiver.toml"
    file.write_text(text, "utf-8")
    _, found = config.read(file, {})
    assert len(found) == len(wanted)
    assert all(words in mistake for words, mistake in zip(wanted, found, strict=True))


def test_a_secret_may_stand_in_a_file_or_the_environment_and_never_prints(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("very-secret\n", "utf-8")
    text = '[[outputs]]\nname = "a"\ntype = "webhook"\nurl = "http://127.0.0.1/"\n'
    for given, environment in (
        ('secret_file = "secret"', {}),
        ('secret = "${S}"', {"S": "very-secret"}),
        ('secret = "very-secret"', {}),
    ):
        settings = loaded(tmp_path, text + given + "\n", environment)
        output = settings.outputs[0]
        assert isinstance(output, WebhookSettings)
        assert output.secret == Secret("very-secret")
        assert "very-secret" not in repr(settings)


def test_every_setting_says_what_it_is_for() -> None:
    from dataclasses import fields

    for cls in (*config.SECTIONS.values(), config.ListenerSettings, *config.OUTPUT_TYPES.values()):
        for item in fields(cls):
            assert len(item.metadata["help"]) > 5
