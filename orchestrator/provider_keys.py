"""The public keys with which an OpenID Connect provider signs tokens: fetched, kept, renewed.

Keys that are held stay good for a day while the provider is away; while it answers, one that it
withdrew is refused after twenty minutes at the latest. A name of a key that is unknown
leads to one look at the provider for everybody who asks, and to none for RETRY_S afterwards.

Source:
    OpenID Connect Discovery 1.0, sections 4.1 and 4.3; RFC 7517, "JSON Web Key (JWK)".
"""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPException, HTTPSConnection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import structlog
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from common.errors import RequestError, UnavailableError
from common.key_files import read_file
from orchestrator.callers import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from common.clock import Clock

log = structlog.get_logger()

_SIGNING = {("RSA", ""): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
ALGORITHMS = frozenset(_SIGNING.values())  # of tokens; none of them is symmetric
RETRY_S = 10.0  # least time between two looks at the provider
REFRESH_S = 600.0  # after which held keys are looked up again, while they still serve
AWAIT_S = 1200.0  # after which a call waits for that look: nobody called since, or it fails
LAST_S = 86400.0  # after which held keys count no more
TIMEOUT_S = 10.0  # for both documents together
LONGEST = 1 << 20  # bytes of either document
_SOCKET_TIMEOUT_S = 4.0


class ProviderAway(UnavailableError):
    """The provider's keys cannot be had now."""

    def __init__(self, issuer: str) -> None:
        super().__init__(
            f"the keys of the provider {issuer} cannot be read now, the orchestrator's log says "
            "why: try again later, or call with a certificate"
        )


class ProviderRefuses(Unauthenticated):
    """The provider answers, and not with what it was asked for."""

    def __init__(self, issuer: str) -> None:
        super().__init__(
            f"{issuer} refuses what it is asked for, the orchestrator's log says why: begin to "
            "sign in again, or ask for a link with `fedgate web link`"
        )


class UnknownKey(Unauthenticated):
    """A token names a key that the provider does not have."""

    def __init__(self, kid: str, issuer: str) -> None:
        super().__init__(
            f"the token names the key {kid[:80]!r}, and {issuer} has published none of that name: "
            "sign in there again for a new token"
        )


class AuthorityUnusable(RequestError):
    """The file that should certify the provider holds no certificate."""

    field = "oidc.authority"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} holds no certificate in PEM: correct authority in [oidc]")


class Unusable(Exception):
    """What came from the provider is not what it should be; for the log."""


class ProviderKeys:
    """The keys of one provider, by the name that tokens give them."""

    def __init__(self, issuer: str, authority: Path | None, clock: Clock) -> None:
        """Trust the provider's host by `authority`, or by what the system trusts."""
        self._issuer = issuer
        self._clock = clock
        self._context = _context(authority)
        self._keys: dict[str, PyJWK] = {}
        self._looking: asyncio.Task[None] | None = None
        self._next_look = self._fetched_at = float("-inf")
        self._is_away = True

    async def key(self, kid: str) -> PyJWK:
        """Return the key that tokens call `kid`.

        Raises:
            UnknownKey: the provider has none of that name.
            ProviderAway: nobody can say whether it has.
        """
        age_s = self._clock.now() - self._fetched_at
        if kid not in self._keys or age_s > AWAIT_S:
            await self._look()
        elif age_s > REFRESH_S:
            self._begin_to_look()
        if self._clock.now() - self._fetched_at > LAST_S:
            raise ProviderAway(self._issuer)
        if kid in self._keys:
            return self._keys[kid]
        raise ProviderAway(self._issuer) if self._is_away else UnknownKey(kid, self._issuer)

    async def close(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    async def configuration(self) -> dict[str, Any]:
        """Return what the provider says of itself; raise ProviderAway."""
        found = await self.ask(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration")
        if found.get("issuer") != self._issuer:
            log.warning("provider_refuses", issuer=self._issuer, why="it is another issuer")
            raise ProviderRefuses(self._issuer)
        return found

    async def ask(self, url: str, form: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Return what the provider answers at `url`, to a form if there is one.

        Raises:
            ProviderAway: it does not answer.
            ProviderRefuses: it answers something else.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await asyncio.to_thread(_document, url, self._context, form)
        except (OSError, HTTPException) as error:
            log.warning("provider_away", issuer=self._issuer, why=str(error) or "no answer in time")
            raise ProviderAway(self._issuer) from error
        except (ValueError, Unusable) as error:
            log.warning("provider_refuses", issuer=self._issuer, why=str(error))
            raise ProviderRefuses(self._issuer) from error

    async def _look(self) -> None:
        """Return once the provider was looked at, unless it is too soon for that."""
        self._begin_to_look()
        if self._looking is not None:
            await asyncio.wait([self._looking])  # a caller that leaves does not end it

    def _begin_to_look(self) -> None:
        now = self._clock.now()
        if now >= self._next_look and (self._looking is None or self._looking.done()):
            self._next_look = now + RETRY_S
            self._looking = asyncio.create_task(self._fetch(), name="provider's keys")

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                self._keys = await asyncio.to_thread(_fetched, self._issuer, self._context)
        except (OSError, HTTPException, ValueError, Unusable) as error:  # a timeout is an OSError
            self._is_away = True
            log.warning("provider_away", issuer=self._issuer, why=str(error) or "no answer in time")
        else:
            self._is_away, self._fetched_at = False, self._clock.now()
            log.info("provider_keys", issuer=self._issuer, keys=sorted(self._keys))


def _context(authority: Path | None) -> ssl.SSLContext:
    if authority is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=read_file(authority).decode("ascii"))
    except (ssl.SSLError, UnicodeDecodeError) as error:
        raise AuthorityUnusable(authority) from error


def _fetched(issuer: str, context: ssl.SSLContext) -> dict[str, PyJWK]:
    """Return the keys that may sign, by name, as the provider publishes them."""
    discovery = _document(f"{issuer.rstrip('/')}/.well-known/openid-configuration", context)
    if discovery.get("issuer") != issuer:
        why = f"its configuration is of the issuer {str(discovery.get('issuer'))[:200]!r}"
        raise Unusable(why)
    return usable_keys(_document(str(discovery.get("jwks_uri")), context))


def usable_keys(published: dict[str, Any]) -> dict[str, PyJWK]:
    """Return those of a published set of keys that have a name and may sign tokens."""
    listed = published.get("keys")
    if not isinstance(listed, list):
        why = "it publishes no set of keys"
        raise Unusable(why)
    keys: dict[str, PyJWK] = {}
    for each in listed:
        if isinstance(each, dict) and isinstance(name := each.get("kid"), str):
            key = _signing(each)
            if key is not None:
                keys.setdefault(name, key)
    return keys


def _signing(published: dict[str, Any]) -> PyJWK | None:
    """Return a published key, or None where it may not sign tokens."""
    algorithm = _SIGNING.get((str(published.get("kty")), str(published.get("crv", ""))))
    as_expected = published.get("alg", algorithm) == algorithm
    is_public = "d" not in published and published.get("use", "sig") == "sig"
    if algorithm is None or not as_expected or not is_public:
        return None
    try:
        key = PyJWK(published, algorithm)
    except PyJWTError:
        return None
    return None if key.Algorithm.check_key_length(key.key) else key


def _document(
    url: str, context: ssl.SSLContext, form: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return the JSON object at `url`, over HTTPS alone and without following anybody elsewhere."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        why = f"{url[:200]!r} is no https address"
        raise Unusable(why)
    place = parts.path + (f"?{parts.query}" if parts.query else "")
    connection = HTTPSConnection(
        parts.hostname, parts.port, timeout=_SOCKET_TIMEOUT_S, context=context
    )
    with closing(connection):
        _request(connection, place, form)
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            why = f"{url} answers {response.status}"
            raise Unusable(why)
        text = response.read(LONGEST + 1)
    return _object(text, url)


def _request(connection: HTTPSConnection, place: str, form: Mapping[str, str] | None) -> None:
    headers = {"Accept": "application/json"}
    if form is None:
        connection.request("GET", place, headers=headers)
    else:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request("POST", place, urlencode(form), headers)


def _object(text: bytes, url: str) -> dict[str, Any]:
    """Return the JSON object in what came from `url`; raise Unusable."""
    if len(text) > LONGEST:
        why = f"{url} is longer than {LONGEST} bytes"
        raise Unusable(why)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        why = f"{url} is not JSON"
        raise Unusable(why) from error
    if not isinstance(found, dict):
        why = f"{url} is not a JSON object"
        raise Unusable(why)
    return found
