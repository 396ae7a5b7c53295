"""One target under atheris: ``python -m fuzz.one TARGET [options and folders of libFuzzer]``."""

import os
import sys

import atheris

with atheris.instrument_imports(include=["protocols", "receiver"]):
    from fuzz.targets import TARGETS
    from receiver.config import LogSettings
    from receiver.telemetry import start_logging


def main() -> None:
    """Fuzz until the time is over or something is found; ends the process with the fuzzer's exit code."""
    name, options = sys.argv[1], sys.argv[2:]
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        start_logging(LogSettings(), nowhere)  # log lines are made, and read by nobody
        atheris.Setup([sys.argv[0], *options], TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main()
