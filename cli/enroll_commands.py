"""`fedgate enroll`: who joins the federation, who belongs to it, and who no longer does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.asking import answered, asked
from cli.config import operator_config
from cli.membership_client import MembershipClient
from cli.options import ConfigOption
from common.certificates import fingerprint as certificate_print
from common.certificates import key_digest, read_chain
from common.console import ERRORS, OUT, Format, FormatOption, emit_json, emit_table
from common.enrolment import Token, read_request, request_from_pem
from common.errors import RequestError
from common.ids import is_digest
from common.joining import KeyFolder, enrol
from common.key_files import read_file, write_new
from common.membership import Member
from common.renewing import renew_files
from common.tls import Role

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from common.membership import Roll

    ResultT = TypeVar("ResultT")

app = typer.Typer(
    no_args_is_help=True, help="Members: who joins, who belongs to the federation, who no longer."
)

NameArgument = Annotated[str, typer.Argument(help="The member's name.")]
RoleOption = Annotated[Role, typer.Option(help="What the member may be.")]


class NameOrFingerprint(RequestError):
    """Neither a member nor a certificate was named, or both."""

    def __init__(self) -> None:
        super().__init__(
            "say whom to revoke, in one way: NAME with --role, or --fingerprint (64 hexadecimal "
            "digits, from `fedgate enroll list`)"
        )


class NothingToRenew(RequestError):
    """Somebody who signs in with a token has no certificate."""

    def __init__(self) -> None:
        super().__init__(
            "the settings name no certificate, so there is none to renew: whoever signs in with a "
            "token gets a new one of the OIDC provider"
        )


@app.command("create")
def create(
    name: NameArgument,
    role: RoleOption = Role.GATEWAY,
    hours: Annotated[
        float, typer.Option(min=0.0, max=24.0, help="How long the token can be used, at most 24.")
    ] = 24.0,
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Make a token with which NAME can enrol, once; it is shown now and never again.

    Example:
        fedgate enroll create north-clinic
    """
    token, expires = _ask(
        config, lambda client: client.create_token(Member(role, name), hours * 3600)
    )
    if output is Format.JSON:
        emit_json({"token": token, "expires": expires})
        return
    OUT.print(token, markup=False)
    how = "fedgate-gateway enroll" if role is Role.GATEWAY else "fedgate enroll accept"
    ERRORS.print(f"{role} {name} uses it once, before {expires:%Y-%m-%d %H:%M} UTC:")
    ERRORS.print(f"{how} --token …", markup=False)


@app.command("accept")
def accept(
    token: Annotated[
        str,
        typer.Option(envvar="FEDGATE_ENROLMENT_TOKEN", help="The line that an admin has sent."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for ca.pem, cert.pem and key.pem.")] = Path(
        "keys"
    ),
    output: FormatOption = Format.TEXT,
) -> None:
    """Make a key here and get a certificate for it by a token: for people."""
    identity = answered(enrol(Token.from_text(token), KeyFolder(out)))
    if output is Format.JSON:
        emit_json({"identity": identity.uri, "folder": out})
    else:
        OUT.print(f"{identity.uri}: certificate and key in {out}", markup=False)


@app.command("sign")
def sign(
    request: Annotated[Path, typer.Argument(help="The signing request that was brought here.")],
    name: Annotated[str, typer.Option(help="Whose it is, as you know it.")],
    out: Annotated[Path, typer.Option(help="Where to write the certificate.")],
    role: RoleOption = Role.GATEWAY,
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Have a request signed that came by file, from a site that enrols without a network."""
    der = request_from_pem(read_file(request))
    digest = key_digest(read_request(der).key)
    chain = _ask(config, lambda client: client.certify(Member(role, name), der))
    write_new(out.parent, {out.name: chain})
    root_print = certificate_print(read_chain(chain)[-1])
    said = {"certificate": out, "key_fingerprint": digest, "root": root_print}
    if output is Format.JSON:
        emit_json(said)
        return
    for what, value in said.items():
        OUT.print(f"{what.replace('_', ' ')}: {value}", markup=False)


@app.command("list")
def list_members(config: ConfigOption = None, output: FormatOption = Format.TEXT) -> None:
    """List certificates that were signed, tokens that can still be used, and revocations."""
    roll = _ask(config, lambda client: client.roll())
    if output is Format.JSON:
        emit_json(roll)
    else:
        _print(roll)


@app.command("revoke")
def revoke(
    name: Annotated[str | None, typer.Argument(help="The member's name.")] = None,
    role: Annotated[Role | None, typer.Option(help="The member's role.")] = None,
    fingerprint: Annotated[
        str | None, typer.Option(help="Of one certificate, instead of a member.")
    ] = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Turn a member away, with every certificate that it has, or one certificate; at once."""
    whom = _whom(name, role, fingerprint)
    ended = _ask(config, lambda client: client.revoke(whom))
    if output is Format.JSON:
        emit_json({"revoked": str(whom), "ended_calls": ended})
    else:
        OUT.print(f"{whom} is turned away; calls of it that were under way: {ended}", markup=False)


@app.command("renew")
def renew(config: ConfigOption = None, output: FormatOption = Format.TEXT) -> None:
    """Replace your own certificate and key, in the files of your settings, before they end."""
    files = operator_config(config).tls.files
    if files is None:
        raise NothingToRenew
    ends = _ask(config, lambda client: renew_files(files, client.renew))
    if output is Format.JSON:
        emit_json({"certificate": files.certificate, "ends": ends})
    else:
        OUT.print(f"{files.certificate}: valid until {ends:%Y-%m-%d %H:%M} UTC", markup=False)


def _ask(config: Path | None, ask: Callable[[MembershipClient], Awaitable[ResultT]]) -> ResultT:
    return asked(MembershipClient, config, ask)


def _whom(name: str | None, role: Role | None, fingerprint: str | None) -> Member | str:
    if name is not None and role is not None and fingerprint is None:
        return Member(role, name)
    if name is None and role is None and fingerprint is not None and is_digest(fingerprint):
        return fingerprint
    raise NameOrFingerprint


def _print(roll: Roll) -> None:
    rows = [
        (
            each.member,
            f"{each.ends:%Y-%m-%d %H:%M}",
            "revoked" if each.revoked else "",
            each.fingerprint,
        )
        for each in roll.certificates
    ]
    emit_table("certificates", ("member", "until (UTC)", "", "fingerprint"), rows)
    if roll.tokens:
        tokens = [(t.member, f"{t.expires:%Y-%m-%d %H:%M}", t.created_by) for t in roll.tokens]
        emit_table("tokens that can be used", ("member", "until (UTC)", "made by"), tokens)
    if roll.revocations:
        revoked = [
            (r.subject, f"{r.revoked_at:%Y-%m-%d %H:%M}", r.revoked_by) for r in roll.revocations
        ]
        emit_table("revoked", ("what", "when (UTC)", "by"), revoked)
