"""The page's table of roles is the code's; `python -m tests.golden.test_roles` writes it anew."""

from __future__ import annotations

from pathlib import Path

from common.tls import Role
from orchestrator.auth import PERMISSIONS

PAGE = Path(__file__).parents[2] / "docs/how-to/roles-and-sign-in.md"
BEGIN, END = "<!-- made by `python -m tests.golden.test_roles` -->\n", "<!-- end -->"


def table() -> str:
    """Return which role may call what, in Markdown."""
    heads = " | ".join(role.value for role in Role)
    lines = [f"| method | {heads} |", f"|---|{'---|' * len(Role)}"]
    for path, roles in PERMISSIONS.items():
        marks = " | ".join("yes" if role in roles else "" for role in Role)
        _, service, method = path.split("/")
        lines.append(f"| {service.rpartition('.')[2]}/{method} | {marks} |")
    return "\n".join(lines) + "\n"


def split() -> tuple[str, str, str]:
    """Return the page before, between and after the marks."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    within, after = rest.split(END)
    return before, within, after


def test_the_pages_table_is_the_codes():
    assert split()[1] == table()


if __name__ == "__main__":
    before, _, after = split()
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{after}", encoding="utf-8")
