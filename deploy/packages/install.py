"""Install Fedgate from the folder that this file lies in, without a network.

    python3.11 install.py FOLDER     verify, then install into a new virtual environment FOLDER
    python3.11 install.py --verify   only verify
    python3.11 install.py --list     say what is here

Every file is compared with SHA256SUMS before anything else is done. That finds what was damaged or
lost on the way. Against somebody who changes the list too, compare the list's own digest, which
each of the three prints, with the one that whoever made the bundle gave you by another way.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SUMS = HERE / "SHA256SUMS"
SPARE = 1.2  # installed files take whole blocks, and Python adds compiled ones


def main() -> None:
    """Do what was asked; leave with one sentence if it cannot be done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("folder", nargs="?", type=Path, help="the new virtual environment")
    what.add_argument("--verify", action="store_true", help="only verify")
    what.add_argument("--list", action="store_true", help="say what is here")
    asked = parser.parse_args()
    verify()
    if asked.list:
        show(json.loads((HERE / "contents.json").read_text()))
    if asked.folder is not None:
        install(asked.folder)


def verify() -> None:
    """Leave with what is wrong unless every file is here as it was listed, and no other."""
    if not SUMS.is_file():
        stop(f"{SUMS} is missing: copy the whole folder again")
    lines = (line.split("  ", 1) for line in SUMS.read_text().splitlines())
    listed = {name: digest for digest, name in lines}
    here = {path.relative_to(HERE).as_posix() for path in HERE.rglob("*") if path.is_file()}
    here -= {SUMS.name}
    wrong = [f"{name} is missing" for name in sorted(set(listed) - here)]
    wrong += [f"{name} is not listed" for name in sorted(here - set(listed))]
    wrong += [
        f"{name} is damaged"
        for name in sorted(here & set(listed))
        if sha256(HERE / name) != listed[name]
    ]
    if wrong:
        stop(f"this bundle is not what was made: {'; '.join(wrong)}: copy the folder again")
    print(f"{len(listed)} files are what was listed; the list's SHA-256: {sha256(SUMS)}")


def sha256(path: Path) -> str:
    """Return a file's digest."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def show(contents: dict[str, Any]) -> None:
    """Print what the bundle holds."""
    print(f"Fedgate {contents['version']} of commit {contents['commit']}")
    print(f"for Python {contents['python']} on {contents['platform']}")
    for package, version in contents["packages"].items():
        print(f"  {package} {version}")
    for package, model in contents["models"].items():
        print(f"the model {model}, in {package}")
    print(f"images: {', '.join(contents['images']) or 'none'}")


def install(folder: Path) -> None:
    """Make a virtual environment of the wheels alone."""
    check(folder, json.loads((HERE / "contents.json").read_text()))
    print(f"installing into {folder}: a minute or two", flush=True)
    venv.create(folder, symlinks=True)
    python, wheels = folder / "bin" / "python", sorted((HERE / "wheels").glob("*.whl"))
    (pip,) = (HERE / "wheels").glob("pip-*.whl")
    alone = ["--isolated", "--no-cache-dir", "--disable-pip-version-check", "-q"]
    line = [str(python), str(pip / "pip"), *alone, "install", "--no-index", "--no-deps"]
    done = subprocess.run([*line, *map(str, wheels)], check=False)
    if done.returncode:
        stop(f"pip could not install the wheels (above), and {folder} is not whole: remove it")
    print(f"done. A first private model:\n\n    {folder}/bin/fedgate demo\n")
    if any((HERE / "images").glob("*.tar")):
        print(f"The images: docker load --input {HERE}/images/fedgate-images.tar")


def check(folder: Path, contents: dict[str, Any]) -> None:
    """Leave with a sentence where this bundle cannot be installed."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}", sysconfig.get_platform()
    if (made_for := (contents["python"], contents["platform"])) != ours:
        stop(
            f"this bundle is for Python {made_for[0]} on {made_for[1]}, and this is Python "
            f"{ours[0]} on {ours[1]}: run it with python{made_for[0]}, or have one made for yours"
        )
    if folder.exists():
        stop(f"{folder} is there already: name a folder that is not")
    needed, parent = installed_bytes() * SPARE, folder.absolute().parent
    if not parent.is_dir():
        stop(f"{parent} is no folder: make it first")
    if (free := shutil.disk_usage(parent).free) < needed:
        stop(f"{parent} has {free / 1e9:.1f} GB free, and {needed / 1e9:.1f} GB are needed")


def installed_bytes() -> int:
    """Return what the wheels take once they are unpacked."""
    total = 0
    for wheel in (HERE / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            total += sum(entry.file_size for entry in archive.infolist())
    return total


def stop(sentence: str) -> None:
    """Leave with a sentence and exit code 1."""
    sys.exit(f"error: {sentence}")


if __name__ == "__main__":
    main()
