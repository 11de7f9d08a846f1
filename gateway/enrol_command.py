"""`fedgate-gateway enroll`: how this site comes by its certificate; its key is made here."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.console import OUT, Format, FormatOption, emit_json, working
from common.errors import RequestError
from common.ids import is_name
from common.tls import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

TokenOption = Annotated[
    str | None,
    typer.Option(
        envvar="FEDGATE_ENROLMENT_TOKEN", help="The line that `fedgate enroll create` printed."
    ),
]
OutOption = Annotated[Path, typer.Option(help="Folder for ca.pem, cert.pem and key.pem.")]


class OneWayOnly(RequestError):
    """Enrolling was asked for in no way, or in several at once."""

    def __init__(self) -> None:
        super().__init__(
            "say how to enrol, in one way: --token; or by file, first --request-out with "
            "--federation and --name, then --certificate-in with --root"
        )


class TokenForAnotherRole(RequestError):
    """A token is not for a gateway."""

    field = "token"

    def __init__(self, role: Role) -> None:
        super().__init__(
            f"the token is for the role {role}, not for a gateway: `fedgate enroll accept` takes it"
        )


def enroll(  # noqa: PLR0913 - options of a command line
    token: TokenOption = None,
    out: OutOption = Path("keys"),
    request_out: Annotated[
        Path | None, typer.Option(help="Write a signing request there, to be carried to an admin.")
    ] = None,
    federation: Annotated[str, typer.Option(help="The federation's name, in a request.")] = "",
    name: Annotated[str, typer.Option(help="This gateway's name, in a request.")] = "",
    certificate_in: Annotated[
        Path | None, typer.Option(help="Take the certificate that an admin has signed.")
    ] = None,
    root: Annotated[
        str, typer.Option(help="The root's fingerprint, heard from an admin another way.")
    ] = "",
    output: FormatOption = Format.TEXT,
) -> None:
    """Make a key here and get a certificate for it: by a token, or by files that are carried.

    Example:
        fedgate-gateway enroll --token TOKEN --out keys
    """
    ways = (token, request_out, certificate_in)
    if sum(way is not None for way in ways) != 1:
        raise OneWayOnly
    if token is not None:
        with working("waiting for the orchestrator"):
            found = asyncio.run(_by_token(token, out))
        _say(output, found)
    elif request_out is not None:
        if not (is_name(federation) and is_name(name)):
            raise OneWayOnly
        _say(output, _ask(Identity(federation, Role.GATEWAY, name), out, request_out))
    elif certificate_in is not None:
        if not root:
            raise OneWayOnly
        _say(output, _take(certificate_in, out, root))


async def _by_token(text: str, out: Path) -> dict[str, object]:
    from common.enrolment import Token
    from common.joining import KeyFolder, enrol
    from gateway.outgoing import GuardedChannel

    token = Token.from_text(text)
    if token.identity.role is not Role.GATEWAY:
        raise TokenForAnotherRole(token.identity.role)
    identity = await enrol(token, KeyFolder(out), GuardedChannel)
    return {"identity": identity.uri, "folder": out}


def _ask(identity: Identity, out: Path, request_out: Path) -> dict[str, object]:
    from common.certificates import key_digest
    from common.enrolment import make_request, request_to_pem
    from common.joining import KeyFolder
    from common.key_files import write_new

    key = KeyFolder(out).key()
    pem = request_to_pem(make_request(key, identity))
    write_new(request_out.parent, {request_out.name: pem})
    digest = key_digest(key.public_key())
    return {"identity": identity.uri, "request": request_out, "key_fingerprint": digest}


def _take(certificate_in: Path, out: Path, root: str) -> dict[str, object]:
    from common.certificates import read_chain
    from common.enrolment import read_fingerprint
    from common.joining import KeyFolder, root_among
    from common.key_files import read_file

    found = read_chain(read_file(certificate_in))
    trusted = root_among(found, read_fingerprint(root), str(certificate_in))
    identity = KeyFolder(out).finish([each for each in found if each != trusted], trusted)
    return {"identity": identity.uri, "folder": out}


def _say(output: Format, found: Mapping[str, object]) -> None:
    if output is Format.JSON:
        emit_json(found)
        return
    for what, value in found.items():
        OUT.print(f"{what.replace('_', ' ')}: {value}", markup=False)
