"""Makes the messages of gRPC's interfaces. `python tests/stubs.py` writes them; `make check` and a test hold that they are current.

Each .proto file in `PROTOS` has beside it what protoc makes: a module, and its types. Servers and clients are made of the
messages by hand, which is a line a call and has types; protoc's have none.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
PROTOS: Final = ("client/lnh_kms/api.proto", "services/lnh_services/store/etcd_client/rpc.proto")
_ENDINGS: Final = ("_pb2.py", "_pb2.pyi")


def protoc(proto: str, place: Path, *outputs: str) -> None:
    """Run protoc on a file of `PROTOS`, named within its import root as it is imported; what it makes goes to `place`."""
    top, _, within = proto.partition("/")
    where = [f"--{output}_out={place}" for output in outputs]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT / top}", *where, within], check=True, cwd=ROOT
    )


def made() -> dict[Path, str]:
    """All files that protoc makes, as they should be."""
    found: dict[Path, str] = {}
    for proto in PROTOS:
        with tempfile.TemporaryDirectory() as place:
            protoc(proto, Path(place), "python", "pyi")
            within = Path(proto.partition("/")[2])
            for ending in _ENDINGS:
                name = f"{within.stem}{ending}"
                found[(ROOT / proto).with_name(name)] = (Path(place) / within.parent / name).read_text()
    return found


def stale() -> list[Path]:
    """The files that are not as they should be."""
    return [path for path, text in made().items() if not path.exists() or path.read_text() != text]


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        old = [path.relative_to(ROOT).as_posix() for path in stale()]
        sys.exit(f"{', '.join(old)}: made of another .proto file, or by another protoc; run `make stubs`" if old else 0)
    for path, text in made().items():
        path.write_text(text)
