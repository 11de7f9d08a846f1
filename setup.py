"""Builds the modules of `protos/` into every wheel; all else about Fedgate is in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithProtos(build_py):
    """Copies the packages, then writes what is generated beside them."""

    def run(self) -> None:
        """Leave everything in `build_lib`; an editable install has its own from `make protos`."""
        super().run()
        if self.editable_mode:
            return
        into = (f"--python_out={self.build_lib}", f"--grpc_python_out={self.build_lib}")
        protos = sorted(str(path) for path in Path("protos").glob("**/*.proto"))
        line = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *into, *protos]
        subprocess.run(line, check=True)


setup(cmdclass={"build_py": BuildWithProtos})
