"""Build the PKCS#11 module, `lnh-pkcs11.so`: `python build.py TARGET...`.

It needs a C compiler (`CC`, or else cc), and of Python its library alone, so that a wheel's build can run it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
NAME: Final = "lnh-pkcs11.so"
SOURCES: Final = (
    "attributes.c",
    "call.c",
    "interfaces.c",
    "keys.c",
    "link.c",
    "once.c",
    "parameters.c",
    "shapes.c",
    "tokens.c",
    "trace.c",
    "uses.c",
    "wire.c",
)
STANDARD: Final = ("-std=c11", "-D_GNU_SOURCE", "-fPIC", "-fvisibility=hidden", "-pthread")
WARNINGS: Final = (
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wpedantic",
    "-Wshadow",
    "-Wconversion",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wvla",
    "-Wformat=2",
)
HARDENING: Final = ("-O2", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2")
LINKING: Final = ("-shared", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,-Bsymbolic")
NO_UNDEFINED: Final = ("-Wl,-z,defs",)  # not with sanitizers, whose functions are the program's
SANITIZERS: Final = (
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)


def compiler() -> list[str] | None:
    """Return the command of the C compiler; None where there is none."""
    command = shlex.split(os.environ.get("CC", "cc"))
    return command if command and shutil.which(command[0]) else None


def build(target: Path, cc: Sequence[str], flags: Sequence[str] = ()) -> None:
    """Build the module as `target`, with more flags where a test wants them.

    Raises:
        subprocess.CalledProcessError: the compiler failed; what it said is in its output.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    compiled = [*cc, *STANDARD, *WARNINGS, *HARDENING, *LINKING, *(flags or NO_UNDEFINED)]
    made = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        subprocess.run(
            [*compiled, "-o", str(made), *(str(HERE / source) for source in SOURCES)],
            check=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        made.replace(target)  # at once: an application may have the old one loaded
    finally:
        made.unlink(missing_ok=True)


def main(arguments: Sequence[str]) -> int:
    """Build what the command line names, and say what came of it."""
    if not arguments:
        print("usage: python build.py TARGET...", file=sys.stderr)
        return 2
    targets = [Path(each) for each in arguments]
    cc = compiler()
    if cc is None:
        print("there is no C compiler: install gcc or clang, or name one in CC", file=sys.stderr)
        return 1
    try:
        for target in targets:
            build(target, cc)
    except subprocess.CalledProcessError as error:
        print(error.output, file=sys.stderr)
        return 1
    print(*targets, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
