"""The bundle for installations without a network, from its making to a first model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "deploy" / "packages"
PYTHON = Path(sys.base_prefix) / "bin" / f"python3.{sys.version_info.minor}"
# a network namespace that has loopback and nothing else
ALONE = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
DIAL = "import socket; socket.create_connection(('192.0.2.1', 443), 5)"


def why_not() -> str | None:
    """Return why no process can be cut off from the network here, None if one can."""
    for tool in ("unshare", "ip", "git"):
        if shutil.which(tool) is None:
            return f"this needs `{tool}` (Debian: util-linux, iproute2, git)"
    tried = subprocess.run([*ALONE, "true"], capture_output=True, text=True, check=False)
    return f"no network namespace here: {tried.stderr.strip()}" if tried.returncode else None


WHY_NOT = why_not()


def run(*line: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command with nothing of this environment but where programs lie."""
    plain = {"PATH": os.environ["PATH"], "HOME": str(cwd), "TMPDIR": str(cwd)}
    return subprocess.run(line, cwd=cwd, env=plain, capture_output=True, text=True, check=False)


@pytest.fixture
def small(tmp_path) -> Path:
    """A bundle for this Python with one file, which is no package."""
    folder = tmp_path / "bundle"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "README").write_text("nothing to install")
    contents = {
        "version": "1.2.3",
        "commit": "0" * 40,
        "python": f"3.{sys.version_info.minor}",
        "platform": sysconfig.get_platform(),
        "packages": {"fedgate": "1.2.3"},
        "models": {},
        "images": [],
    }
    (folder / "contents.json").write_text(json.dumps(contents))
    shutil.copy(SCRIPTS / "install.py", folder)
    list_digests(folder)
    return folder


def list_digests(bundle: Path) -> None:
    """Write SHA256SUMS of what lies there, with the distribution's own tool."""
    sums = bundle / "SHA256SUMS"
    sums.unlink(missing_ok=True)
    names = sorted(str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file())
    made = subprocess.run(["sha256sum", *names], cwd=bundle, check=True, capture_output=True)
    sums.write_bytes(made.stdout)


def said_by(bundle: Path, *arguments: str) -> tuple[int, str]:
    """Run a bundle's installer; return its exit code and what it said."""
    done = run(PYTHON, bundle / "install.py", *arguments, cwd=bundle.parent)
    return done.returncode, done.stdout + done.stderr


def test_it_says_what_it_contains(small):
    code, said = said_by(small, "--list")
    assert code == 0
    assert "Fedgate 1.2.3 of commit 0000" in said
    assert "images: none" in said
    assert hashlib.sha256((small / "SHA256SUMS").read_bytes()).hexdigest() in said


def damage(bundle: Path) -> None:
    (bundle / "wheels" / "README").write_text("nothing to instal!")


def lose(bundle: Path) -> None:
    (bundle / "wheels" / "README").unlink()


def add(bundle: Path) -> None:
    (bundle / "wheels" / "torch-99-py3-none-any.whl").write_text("something else")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (damage, "wheels/README is damaged"),
        (lose, "wheels/README is missing"),
        (add, "wheels/torch-99-py3-none-any.whl is not listed"),
    ],
)
def test_one_that_is_not_what_was_made_is_not_installed(small, change, why):
    change(small)
    code, said = said_by(small, "installed")
    assert code == 1
    assert f"error: this bundle is not what was made: {why}: copy the folder again" in said
    assert not (small.parent / "installed").exists()


def test_one_for_another_python_says_which(small):
    contents = json.loads((small / "contents.json").read_text())
    (small / "contents.json").write_text(json.dumps({**contents, "python": "3.99"}))
    list_digests(small)
    code, said = said_by(small, "installed")
    assert code == 1
    assert "this bundle is for Python 3.99" in said
    assert "run it with python3.99" in said


def test_nothing_is_installed_over_what_is_there(small):
    (small.parent / "installed").mkdir()
    code, said = said_by(small, "installed")
    assert (code, "installed is there already: name a folder that is not" in said) == (1, True)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for 2 GB, gone at once; its path is short, for the sockets of the demo."""
    with tempfile.TemporaryDirectory(prefix="fedgate-") as folder:
        yield Path(folder)


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
@pytest.mark.timeout(1200)
def test_the_bundle_alone_brings_a_first_private_model_where_no_way_leads_out(scratch):
    make = [sys.executable, SCRIPTS / "bundle.py", scratch / "made", "--without-images"]
    subprocess.run(make, check=True, capture_output=True)
    (bundle,) = (scratch / "made").iterdir()
    dialled = run(*ALONE, PYTHON, "-c", DIAL, cwd=scratch)
    assert "Network is unreachable" in dialled.stderr
    installed = run(*ALONE, PYTHON, bundle / "install.py", "fedgate", cwd=scratch)
    assert installed.returncode == 0, installed.stderr
    shutil.rmtree(bundle)  # nothing of it is needed any more
    demo = ("demo", "--gateways", "1", "--rounds", "1", "--format", "json")
    found = run(*ALONE, scratch / "fedgate" / "bin" / "fedgate", *demo, cwd=scratch)
    assert found.returncode == 0, found.stderr
    result = json.loads(found.stdout)
    assert 7.9 < result["epsilon"] <= 8
    model = (scratch / "model" / "model.safetensors").read_bytes()
    assert hashlib.sha256(model).hexdigest() == result["model_sha256"]
