"""The committed corpus through every target, without the fuzzer; and the report of a run, with one."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import seeds
from fuzz.targets import TARGETS

INPUTS = sorted(path for path in seeds.CORPUS.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_input_of_the_corpus_breaks_no_contract(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("data", [b"", b"\x00", b"\xff", bytes(range(256)), b'\n00000FFF"' * 500, b"[K" * 2000], ids=len)
def test_every_target_takes_any_bytes(target: str, data: bytes) -> None:
    TARGETS[target](data)


def test_every_target_has_a_corpus_and_all_of_it_is_small() -> None:
    assert {path.parent.name for path in INPUTS} == set(TARGETS)
    assert len(INPUTS) < 150
    assert sum(path.stat().st_size for path in INPUTS) < 100_000


def test_the_corpus_holds_what_the_vectors_give() -> None:
    for target, files in seeds.make().items():
        for name, content in files.items():
            assert (seeds.CORPUS / target / name).read_bytes() == content, "run: python -m fuzz.seeds"


def test_a_target_that_lets_an_error_through_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    from protocols import dc09

    def careless(_frame: object) -> None:
        raise IndexError

    monkeypatch.setattr(dc09, "open_envelope", careless)
    with pytest.raises(IndexError):
        TARGETS["message"](b"x")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "fuzz", *arguments], capture_output=True, text=True, check=False)


def test_a_saved_input_is_run_again_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "sia_dcs-crash-1").write_bytes(b"NHA1")
    (tmp_path / "crash-1").write_bytes(b"NHA1")
    assert "takes it" in _run("--replay", str(tmp_path / "sia_dcs-crash-1")).stdout
    nameless = _run("--replay", str(tmp_path / "crash-1"))
    assert nameless.returncode == 2
    assert "must begin with its target" in nameless.stderr


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="make fuzz installs atheris")
def test_a_short_run_tells_executions_of_its_target_and_exits_0() -> None:
    done = _run("--seconds", "2", "--target", "contact_id")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "contact_id" in done.stdout
    assert "executions" in done.stdout
