"""Which functions of ours write to a disk or a database, as their source says."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.faults.failpoints import PRODUCT, ROOT, Point

METHODS = {  # of disks, files and paths
    *("create", "extend", "rename", "unlink", "make_folder", "sync_folder", "write", "sync"),
    *("mkdir", "rmdir", "touch", "write_text", "write_bytes", "symlink_to", "hardlink_to"),
    *("copyfile", "rmtree", "fsync", "pwrite", "posix_fallocate", "ftruncate", "truncate"),
}
STATEMENTS = {"insert", "update", "delete"}
TERMINAL = {"stdout", "stderr", "OUT", "ERRORS"}
ELSEWHERE = {  # functions that write and are not at work in a federation that nothing else disturbs
    "common.key_files.read_pair": "ends a renewal that a crash cut short: test_renewal.py",
    "common.key_files.replace_pair": "a renewal, cut short at each rename: test_renewal.py",
    "common.key_files.write_new": "a command, refused where a file is: test_enrolment.py",
    "common.web.answers.Sealed.__call__": "headers of an answer, no file",
    "common.tracing.tracing": "no file: `create` makes what a resource says of itself",
    "common.wire_operator.status_to_proto": "a message, no file",
    "gateway.audit_heads.accept": "a command: test_audit_heads.py",
    "gateway.metrics.measured": "an address, where [metrics] asks: test_site_metrics.py",
    "gateway.outgoing._count": "a message of one field, no file",
    "gateway.pause.Pause.turn_off": "a click or a command: test_paused_gateways.py",
    "gateway.pause.Pause.turn_on": "a click or a command: test_paused_gateways.py",
    "gateway.web.asked.Asked.note": "for people, where there is a page: test_site_page.py",
    "gateway.web.server.serving_site_page": "an address, where there is a page: test_site_page.py",
    "gateway.web_commands.link": "calls `create` of the links: test_site_page.py",
    "gateway.web_links.Links.create": "a command: test_site_page.py",
    "gateway.web_links.Links.use": "a link, used up: test_site_page.py",
    "gateway.outgoing.OutgoingStream._write": "to the network",
    "gateway.bookings.note_refusal": "a second parent for a charged round: test_ledger_on_disk.py",
    "gateway.countersignatures.trust": "a command: test_ledger_commands.py",
    "gateway.ledger_desk.Desk.image": "a copy that is thrown away",
    "gateway.merging._add": "a command: test_kill_merge.py",
    **{
        f"orchestrator.backup.{name}": "a command: test_backup.py"
        for name in ("make", "restore", "_snapshot", "_copy", "_copy_weights", "_write")
    },
    "orchestrator.enrolments.Enrolments.create_token": "one transaction: test_enrolment.py",
    "orchestrator.enrolments.Enrolments.enrol": "one transaction, asked again: test_enrolment.py",
    "orchestrator.four_eyes.FourEyes.confirm": "one transaction: test_four_eyes.py",
    "orchestrator.journal.Journal.sign_run": "a run of an older version: test_stores.py",
    "orchestrator.members.Members.enrolling": "where one enrols: test_enrolment.py",
    "orchestrator.metrics.measured": "an address, where [metrics] asks: test_metrics.py",
    "orchestrator.roster.Roster.note": "in the transaction of an enrolment: test_enrolment.py",
    "orchestrator.roster.Roster.revoke": "one transaction: test_revocation.py",
    "orchestrator.operations.Operations.start_run": "calls `create` of the runs, no file",
    "orchestrator.uploads.Upload.keep": "only where a plan asks for it: test_kill_kept.py",
    "orchestrator.web.server.serving_page": "an address, where there is a page: test_page.py",
}


def writers() -> set[str]:
    """Return the functions of both processes in which something is written."""
    found = set()
    for package in PRODUCT:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "migrations" not in path.parts:
                found |= set(_writers_in(path))
    return found


def never_at_work(points: Iterable[Point]) -> set[str]:
    """Return the functions that write and were at work at none of `points`, nor are elsewhere."""
    at_work = {function for point in points for function in point.functions}
    return writers() - at_work - ELSEWHERE.keys()


def _writers_in(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    statements = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy")
        for name in node.names
        if name.name in STATEMENTS
    }
    for name, function in _functions(tree, module):
        if any(_writes(call, statements) for call in ast.walk(function)):
            yield name


def _functions(node: ast.AST, name: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield the functions in a module and its classes; what is in a function belongs to it."""
    for each in ast.iter_child_nodes(node):
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name}.{each.name}", each
        elif isinstance(each, ast.ClassDef):
            yield from _functions(each, f"{name}.{each.name}")


def _writes(node: ast.AST, statements: set[str]) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    if isinstance(called, ast.Name):
        return called.id in statements
    if not isinstance(called, ast.Attribute):
        return False
    of = called.value
    last = of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else ""
    if called.attr == "replace":  # of a path; text has two arguments
        return len(node.args) == 1 and not node.keywords
    return called.attr in METHODS and last not in TERMINAL
