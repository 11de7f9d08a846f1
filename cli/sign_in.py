"""How a person proves who they are: with a certificate and its key, or with a token."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc
from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from common.errors import FederationError, RequestError
from common.key_files import read_file
from common.tls import LONGEST_TOKEN, TlsFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_TOKEN = re.compile(r"[\x21-\x7e]+")


class TokenUnreadable(RequestError):
    """No token is where the settings say."""

    def __init__(self, where: Path | str, why: str) -> None:
        super().__init__(
            f"no token can be read from {where} ({why}): sign in with your OIDC provider and put "
            "the token there, on a line of its own"
        )


class SignIn(BaseModel):
    """The authority that is trusted, and a certificate with its key, or else a token."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    authority: Path  # certificates of the federation's authority, PEM
    certificate: Path | None = None  # this person's own, PEM
    key: Path | None = None  # its private key, PEM
    token_file: Path | None = None  # a JWT of the provider; read for every call, so it may change
    token: SecretStr | None = None  # the same as a value: FEDGATE__TLS__TOKEN in the environment

    @model_validator(mode="after")
    def _is_one_way_to_sign_in(self) -> Self:
        by_certificate = self.certificate is not None or self.key is not None
        is_whole = self.certificate is not None and self.key is not None
        if by_certificate == self._has_token or by_certificate != is_whole:
            msg = "needs certificate and key, or else token_file (or FEDGATE__TLS__TOKEN) alone"
            raise ValueError(msg)
        return self

    @property
    def _has_token(self) -> bool:
        return self.token is not None or self.token_file is not None

    @property
    def files(self) -> TlsFiles | None:
        """The certificate with its key and authority; None for who signs in with a token."""
        if self.certificate is None or self.key is None:
            return None
        return TlsFiles(authority=self.authority, certificate=self.certificate, key=self.key)

    def federation(self) -> str:
        """Return whose member this is: by the certificate, or else by the authority's.

        Raises:
            CertificateFileMissing, NobodysCertificate: neither says so.
        """
        # `fedgate serve` comes by this module and needs none of what reads certificates
        from common.certificate_keys import NobodysCertificate, signer_in  # noqa: PLC0415
        from common.certificates import CertificateUnreadable, read_chain  # noqa: PLC0415
        from common.issuing import federation_of  # noqa: PLC0415

        if self.certificate is not None:
            return signer_in(read_file(self.certificate)).federation
        try:
            found = federation_of(read_chain(read_file(self.authority))[0])
        except CertificateUnreadable as error:
            raise NobodysCertificate from error
        if not found:
            raise NobodysCertificate
        return found

    def authorities(self) -> bytes:
        """Return the certificates of those who sign members here, PEM.

        They are the authority, and what lies between it and one's own certificate: gateways show
        only theirs.

        Raises:
            CertificateFileMissing, CertificateUnreadable: they cannot be read.
        """
        from common.certificates import read_chain, to_pem  # noqa: PLC0415 - as above

        roots = read_file(self.authority)
        if self.certificate is None:
            return roots
        return roots + to_pem(read_chain(read_file(self.certificate))[1:])

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials that present the certificate, or send the token with every call.

        Raises:
            CertificateFileMissing, TokenUnreadable: a file is not there or holds nothing.
        """
        if (files := self.files) is not None:
            return files.channel_credentials()
        self.bearer_token()  # a file that is missing is better said at once than by every call
        return grpc.composite_channel_credentials(
            grpc.ssl_channel_credentials(root_certificates=read_file(self.authority)),
            grpc.metadata_call_credentials(_Bearer(self.bearer_token), name="bearer"),
        )

    def check_in_force(self, now: datetime) -> None:
        """Raise CertificateOutOfDate for who signs in with one that is; a token says so itself."""
        if (files := self.files) is not None:
            files.check_in_force(now)

    def bearer_token(self) -> str:
        """Return the token as it stands now; raise TokenUnreadable."""
        if self.token is not None:
            return _checked(self.token.get_secret_value(), "FEDGATE__TLS__TOKEN")
        if self.token_file is None:
            raise TokenUnreadable("[tls]", "token_file is not set")
        try:
            text = self.token_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is not text"
            raise TokenUnreadable(self.token_file, why or str(error)) from error
        return _checked(text, self.token_file)


class _Bearer(grpc.AuthMetadataPlugin):
    """Puts a token into the metadata of every call; gRPC asks it over TLS alone."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def __call__(
        self,
        context: grpc.AuthMetadataContext,  # noqa: ARG002 - the signature is gRPC's
        callback: grpc.AuthMetadataPluginCallback,
    ) -> None:
        """Hand over what says who is calling, or why nothing does."""
        try:
            token = self._token()
        except FederationError as error:
            callback((), error)
        else:
            callback((("authorization", f"Bearer {token}"),), None)


def _checked(text: str, where: Path | str) -> str:
    token = text.strip()
    if not _TOKEN.fullmatch(token):
        raise TokenUnreadable(where, "it holds no token" if token else "it is empty")
    if len(token) > LONGEST_TOKEN:
        why = f"it has {len(token)} bytes, at most {LONGEST_TOKEN} go: let it hold fewer claims"
        raise TokenUnreadable(where, why)
    return token
