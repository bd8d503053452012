"""A service of this code that takes itself for another version: `other_version.py VERSION MODULE ARGUMENTS...`."""

from __future__ import annotations

import runpy
import sys

import lnh_common

if __name__ == "__main__":
    _, lnh_common.VERSION, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
