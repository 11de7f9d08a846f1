"""Fedgate's source distribution and wheel, of what is committed: `python distribution.py FOLDER`.

The same commit gives the same bytes wherever, whenever and by whomever it is built with the same
tools: the sources come from git, every date is the commit's, and no owner or umask gets in.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
UMASK = 0o022


def build(into: Path, repository: Path = ROOT) -> Path:
    """Write both to `into`; return the wheel, which is built from the source distribution."""
    date = int(git(repository, "log", "-1", "--format=%ct"))
    with tempfile.TemporaryDirectory(prefix="fedgate-dist-") as folder:
        scratch = Path(folder)
        sources = _exported(repository, scratch / "sources")
        plain = _made("sdist", sources, scratch / "plain", date)
        into.mkdir(parents=True, exist_ok=True)
        _repack(plain, into / plain.name, date)
        unpacked = _unpacked(into / plain.name, scratch / "unpacked")
        made = _made("wheel", unpacked / plain.name[: -len(".tar.gz")], scratch / "wheel", date)
        wheel = Path(shutil.copy(made, into / made.name))
    if changed := changes(repository):
        sys.stderr.write(f"not in it, for it is not committed:\n{changed}")
    return wheel


def changes(repository: Path) -> str:
    """Return what of the repository's files is not as it was committed, a line for each."""
    return git(repository, "status", "--porcelain", "--untracked-files=no")


def git(repository: Path, *arguments: str) -> str:
    """Return what git prints of a repository."""
    line = ["git", "-C", str(repository), *arguments]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout


def _exported(repository: Path, into: Path) -> Path:
    archive = into.with_suffix(".tar")
    git(repository, "archive", "--format=tar", f"--output={archive}", "HEAD")
    return _unpacked(archive, into)


def _unpacked(archive: Path, into: Path) -> Path:
    into.mkdir()
    plain = ("--no-same-permissions", "--no-same-owner")
    subprocess.run(["tar", "-xf", archive, "-C", into, *plain], check=True, umask=UMASK)
    return into


def _made(kind: str, sources: Path, into: Path, date: int) -> Path:
    """Build an sdist or a wheel of `sources` into a new folder, with this environment's tools."""
    tool = (sys.executable, "-m", "build", f"--{kind}", "--no-isolation")
    line = (*tool, "--outdir", str(into), str(sources))
    fixed = {"SOURCE_DATE_EPOCH": str(date), "PYTHONHASHSEED": "0"}
    subprocess.run(
        line, check=True, capture_output=True, text=True, umask=UMASK, env={**os.environ, **fixed}
    )
    (made,) = into.iterdir()
    return made


def _repack(archive: Path, into: Path, date: int) -> None:
    """Write `archive` again in the order of its names, without the builder's time and name."""
    with (
        tarfile.open(archive) as old,
        into.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, mtime=date) as packed,
        tarfile.open(fileobj=packed, mode="w") as new,
    ):
        for member in sorted(old.getmembers(), key=lambda each: each.name):
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = date
            member.pax_headers = {}
            new.addfile(member, old.extractfile(member) if member.isfile() else None)


def or_say(work: Callable[[], object]) -> None:
    """Do it; leave with one sentence if a program that it runs fails."""
    try:
        work()
    except subprocess.CalledProcessError as error:
        line = " ".join(map(str, error.cmd))
        sys.exit(f"error: {line}: ended with {error.returncode}: {error.stderr or 'see above'}")


def main() -> None:
    """Build into the folder that is named."""
    sys.stdout.write(f"{build(Path(sys.argv[1]))}\n")


if __name__ == "__main__":
    or_say(main)
