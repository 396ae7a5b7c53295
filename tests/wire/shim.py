"""Lay a few C functions over the C library of a receiver's process; compiled here, the machine itself is left alone."""

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

HEAD = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *dial;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("TEST_DIAL");
    int file = name ? open(name, O_RDONLY) : -1;
    if (file >= 0) {
        void *place = mmap(NULL, 8, PROT_READ, MAP_SHARED, file, 0);
        if (place != MAP_FAILED) dial = place;
        close(file);
    }
}
"""


class Dial:
    """A number that the test sets and the shim reads."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "dial"
        self.file.write_bytes(bytes(8))

    def set(self, value: int) -> None:
        with self.file.open("r+b", buffering=0) as file:
            file.write(struct.pack("<q", value))


def compile_shim(source: str, folder: Path) -> Path:
    """Return the library, or skip the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: nothing can be laid over the C library")
    (folder / "shim.c").write_text(HEAD + source, "utf-8")
    library = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, folder / "shim.c"], check=True)
    return library


def laid_over(library: Path, dial: Dial) -> dict[str, str]:
    """Return the environment that makes a process use it."""
    return {"LD_PRELOAD": str(library), "TEST_DIAL": str(dial.file)}
