"""What `make dist` builds of the last commit: whole, and the same bytes for whoever builds it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGES = [
    each.rstrip("*") for each in SETTINGS["tool"]["setuptools"]["packages"]["find"]["include"]
]

pytestmark = [
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="what is built is what git has"),
    pytest.mark.timeout(300),
]


def built(repository: Path, into: Path, *, umask: int = 0o022, **environment: str) -> Path:
    """Build in a clone of its own; return the folder with sdist and wheel."""
    subprocess.run(["git", "clone", "-q", ROOT, repository], check=True)
    script = repository / "deploy" / "packages" / "distribution.py"
    variables = {**os.environ, **environment}
    line = [sys.executable, script, into]
    subprocess.run(line, check=True, capture_output=True, umask=umask, env=variables)
    return into


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """Sdist and wheel of the last commit."""
    folder = tmp_path_factory.mktemp("dist")
    return built(folder / "clone", folder / "made")


@pytest.fixture(scope="module")
def wheel(dist):
    """The wheel, opened."""
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as archive:
        yield archive


def committed() -> set[str]:
    """Return the files of the last commit in the packages that are distributed."""
    line = ["git", "-C", ROOT, "ls-tree", "-r", "--name-only", "HEAD", *PACKAGES]
    return set(subprocess.run(line, check=True, capture_output=True, text=True).stdout.split())


def test_two_builds_of_a_commit_have_the_same_bytes_and_the_second_replaces_the_first(
    dist, tmp_path
):
    (tmp_path / "made").mkdir()
    for older in dist.iterdir():
        (tmp_path / "made" / older.name).write_text("of another commit")
    elsewhere = {"TZ": "Asia/Tokyo", "LC_ALL": "C", "SOURCE_DATE_EPOCH": "1000000000"}
    again = built(tmp_path / "another-folder", tmp_path / "made", umask=0o077, **elsewhere)
    first, second = ({f.name: f.read_bytes() for f in each.iterdir()} for each in (dist, again))
    assert [Path(name).suffix for name in sorted(first)] == [".whl", ".gz"]
    assert first == second


def test_every_file_of_its_packages_is_in_the_wheel(wheel):
    assert committed() <= set(wheel.namelist())


def test_the_modules_of_the_protocol_are_in_the_wheel_and_nothing_else_that_is_not_committed(wheel):
    beside = {name for name in wheel.namelist() if ".dist-info/" not in name} - committed()
    protos = [name.removesuffix(".proto") for name in committed() if name.endswith(".proto")]
    assert beside == {f"{proto}{end}.py" for proto in protos for end in ("_pb2", "_pb2_grpc")}


def test_the_source_distribution_holds_what_builds_the_wheel_and_no_name_of_a_builder(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        members = archive.getmembers()
    held = {member.name.partition("/")[2] for member in members}
    assert committed() | {"setup.py", "pyproject.toml", "README.md", "LICENSE"} <= held
    assert {(each.uid, each.gid, each.uname, each.gname) for each in members} == {(0, 0, "", "")}


def test_it_asks_for_no_older_grpc_and_protobuf_than_its_modules_take(wheel):
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    asked = {
        need.name: need.specifier
        for need in map(
            Requirement, message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist")
        )
        if need.marker is None
    }
    grpc = wheel.read("protos/federation/v1/gateway_pb2_grpc.py").decode()
    (made_with,) = re.findall(r"^GRPC_GENERATED_VERSION = '(.+)'$", grpc, re.MULTILINE)
    assert str(asked["grpcio"]) == f">={made_with}"
    messages = wheel.read("protos/federation/v1/gateway_pb2.py").decode()
    (made_with,) = re.findall(r"^# Protobuf Python Version: (.+)$", messages, re.MULTILINE)
    assert str(asked["protobuf"]) == f">={made_with}"
