"""Makes the messages of etcd's API out of `rpc.proto`: `python tests/etcd_stubs.py`; with `--check`, says whether they are current."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

SERVICES = Path(__file__).parents[1] / "services"
PROTO = Path("lnh_services/store/etcd_client/rpc.proto")
MADE = (PROTO.with_name("rpc_pb2.py"), PROTO.with_name("rpc_pb2.pyi"))


def generate() -> dict[Path, str]:
    """What protoc makes of the file, by the path below `services`."""
    with tempfile.TemporaryDirectory() as into:
        options = ["-I", str(SERVICES), f"--python_out={into}", f"--pyi_out={into}", str(PROTO)]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options], check=True, cwd=SERVICES)
        return {path: (Path(into) / path).read_text() for path in MADE}


def main() -> int:
    made = generate()
    if "--check" in sys.argv:
        stale = [str(path) for path, text in made.items() if (SERVICES / path).read_text() != text]
        print("\n".join(f"{each} is not what {PROTO} makes: make stubs" for each in stale), end="\n" if stale else "")
        return len(stale)
    for path, text in made.items():
        (SERVICES / path).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
