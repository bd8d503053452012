"""Builds the PKCS#11 module into the wheel, where there is a C compiler; the wheel is whole without it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_MODULE = "client/lnh_pkcs11/module"


class PKCS11Module(BuildHookInterface[Any]):
    """Adds `lnh_pkcs11/module/lnh-pkcs11.so` to a wheel, which is of this platform then."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the module, and go on without it where that cannot be; a checkout has `make pkcs11` for it."""
        if self.target_name != "wheel" or version == "editable":
            return
        build = _load(Path(self.root) / _MODULE / "build.py")
        cc = build.compiler()
        if cc is None or not sys.platform.startswith("linux") or sys.maxsize < 2**32:
            self.app.display_warning("without the PKCS#11 module: it needs 64-bit Linux and a C compiler (CC, or cc)")
            return
        self._directory = tempfile.TemporaryDirectory()
        target = Path(self._directory.name) / build.NAME
        try:
            build.build(target, cc)
        except subprocess.CalledProcessError as error:
            self.app.display_warning(f"without the PKCS#11 module: {' '.join(cc)} failed\n{error.output}")
            return
        build_data["force_include"][str(target)] = f"lnh_pkcs11/module/{build.NAME}"
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was built, which the wheel has now."""
        if hasattr(self, "_directory"):
            self._directory.cleanup()


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("lnh_pkcs11_module_build", path)
    assert spec is not None, "the path is a Python file's"
    assert spec.loader is not None, "a Python file has a loader"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
