"""Who a bearer token says is calling: a JWT of the federation's OpenID Connect provider.

A token's own header only picks a key; the key, as its provider published it, says by which
algorithm it signs. So neither `none` nor a public key taken for a secret gets anywhere.

Source:
    RFC 7519, "JSON Web Token"; RFC 8725, "JWT Best Current Practices", sections 3.1 to 3.9.
"""

from __future__ import annotations

import re
from secrets import compare_digest
from typing import TYPE_CHECKING, Any

import jwt
from jwt.exceptions import (
    InvalidAlgorithmError,
    InvalidAudienceError,
    InvalidIssuerError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)

from common.errors import PermissionRefused
from common.tls import LONGEST_TOKEN
from orchestrator.auth import Person
from orchestrator.callers import Unauthenticated
from orchestrator.provider_keys import ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jwt import PyJWK

    from common.clock import Clock
    from common.tls import Role
    from orchestrator.config import OidcSettings
    from orchestrator.provider_keys import ProviderKeys

SKEW_S = 60.0  # by how much the provider's clock and ours may differ
_TYPES = {"jwt", "at+jwt", "application/at+jwt"}  # not those of other purposes, as a logout's
_NAME = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9._@+|:-]{0,61}[A-Za-z0-9_-])?")
_REQUIRED = ["exp", "iat", "iss", "aud"]
_LATEST = 1 << 40  # seconds since 1970
_WHY: dict[type[PyJWTError], str] = {
    InvalidAudienceError: "is meant for another audience",
    InvalidIssuerError: "is of another issuer",
    InvalidAlgorithmError: "is not signed by the algorithm of the key that it names",
    InvalidSignatureError: "has a wrong signature",
}


class TokenMissing(Unauthenticated):
    """A call brings no token."""

    def __init__(self, issuer: str) -> None:
        super().__init__(
            "the call brings no token (`authorization: Bearer …`): sign in with "
            f"{issuer} and name the token's file as token_file under [tls] of operator.toml"
        )


class TokenRefused(Unauthenticated):
    """A token does not say who is calling."""

    def __init__(self, why: str, issuer: str) -> None:
        super().__init__(f"the token {why}: sign in with {issuer} again for a new one")


class NoRole(PermissionRefused):
    """A token's holder has no role in the federation."""

    def __init__(self, name: str, claim: str) -> None:
        super().__init__(
            f"{name} is in no group (claim {claim!r}) that has a role here: ask whoever runs the "
            "orchestrator to list the group under [oidc] roles, or the provider to add you to one"
        )


class Tokens:
    """What tells people by their tokens."""

    def __init__(self, settings: OidcSettings, keys: ProviderKeys, clock: Clock) -> None:
        self._settings = settings
        self.keys = keys
        self._clock = clock

    async def person(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> Person:
        """Return who makes the call of which `metadata` came.

        Raises:
            TokenMissing, TokenRefused, UnknownKey: nobody can be told by it.
            ProviderAway: the provider is asked for its keys, and does not answer.
            NoRole: a person, and none of this federation.
        """
        token = self._bearer(metadata)
        return self._person(await self._claims(token, self._settings.audience))

    async def person_of(self, id_token: str, client: str, nonce: str) -> Person:
        """Return whom an ID token names that the provider made for `client`, and for `nonce`.

        Raises as `person` does.
        """
        if len(id_token) > LONGEST_TOKEN:
            raise self._refused(f"has more than {LONGEST_TOKEN} bytes")
        claims = await self._claims(id_token, client)
        if not compare_digest(str(claims.get("nonce")).encode(), nonce.encode()):
            raise self._refused("was made for another sign-in")
        if claims.get("azp", client) != client:
            raise self._refused("was made for another client")
        return self._person(claims)

    async def _claims(self, token: str, audience: str) -> dict[str, Any]:
        """Return the claims of a token that the provider signed for `audience`."""
        key = await self.keys.key(self._key_name(token))
        return self._verified(token, key, audience)

    def _person(self, claims: dict[str, Any]) -> Person:
        """Return whom claims name; raise TokenRefused, NoRole."""
        good_until = self._check_times(claims)
        name = self._name(claims)
        roles = self._roles(claims)
        if not roles:
            raise NoRole(name, self._settings.groups_claim)
        return Person(name, roles, good_until)

    def check_time(self, good_until: float) -> None:
        """Raise TokenRefused once a token that was taken has expired."""
        if self._clock.wall().timestamp() >= good_until:
            raise self._refused("has expired")

    def _refused(self, why: str) -> TokenRefused:
        return TokenRefused(why, self._settings.issuer)

    def _bearer(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> str:
        given = [value for name, value in metadata or () if name == "authorization"]
        if not given:
            raise TokenMissing(self._settings.issuer)
        scheme, _, token = str(given[0]).partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer" or not 0 < len(token) <= LONGEST_TOKEN:
            raise self._refused(f"is not one of at most {LONGEST_TOKEN} bytes after 'Bearer '")
        return token

    def _key_name(self, token: str) -> str:
        """Return what the token calls the key that signed it."""
        try:
            header = jwt.get_unverified_header(token)
        except PyJWTError as error:
            raise self._refused("is not a JWT") from error
        words = {name: value for name, value in header.items() if isinstance(value, str)}
        algorithm = words.get("alg", "")
        if algorithm not in ALGORITHMS:
            need = ", ".join(sorted(ALGORITHMS))
            raise self._refused(f"is signed by {algorithm[:20]!r}, not by one of {need}")
        if "typ" in header and words.get("typ", "").lower() not in _TYPES:
            raise self._refused("is made for another purpose")
        if "kid" not in words:
            raise self._refused("does not name its key (`kid`), as the provider must have it do")
        return words["kid"]

    def _verified(self, token: str, key: PyJWK, audience: str) -> dict[str, Any]:
        """Return the claims of a token that the key signed, for us; its times are not looked at."""
        try:
            return jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=audience,
                issuer=self._settings.issuer,
                options={
                    "require": _REQUIRED,
                    "verify_exp": False,  # our clock's matter
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except MissingRequiredClaimError as error:
            raise self._refused(f"has no {error.claim!r}") from error
        except PyJWTError as error:
            raise self._refused(_WHY.get(type(error), "cannot be verified")) from error

    def _check_times(self, claims: dict[str, Any]) -> float:
        """Return until when the token is good; raise TokenRefused if that is past or to come."""
        now = self._clock.wall().timestamp()
        begins = max(self._time(claims, name) for name in ("iat", "nbf") if name in claims)
        if begins > now + SKEW_S:
            raise self._refused("is not yet valid; if it is new, a clock is wrong")
        good_until = self._time(claims, "exp") + SKEW_S
        if now >= good_until:
            raise self._refused("has expired")
        return good_until

    def _time(self, claims: dict[str, Any], name: str) -> float:
        value = claims[name]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not -_LATEST < value < _LATEST:  # nor is what is not a number
            raise self._refused(f"has a {name!r} that is no time")
        return float(value)

    def _name(self, claims: dict[str, Any]) -> str:
        claim = self._settings.name_claim
        name = _found(claims, claim)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            need = "1 to 63 letters, digits and '._@+|:-' of ASCII"
            raise self._refused(f"has no {claim!r} that can be a name ({need})")
        return name.lower()

    def _roles(self, claims: dict[str, Any]) -> frozenset[Role]:
        groups = _found(claims, self._settings.groups_claim)
        listed = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
        roles = self._settings.roles
        return frozenset(
            roles[group] for group in listed if isinstance(group, str) and group in roles
        )


def _found(claims: dict[str, Any], claim: str) -> Any:
    """Return the claim of that name; where there is none, dots lead into tables."""
    if claim in claims:
        return claims[claim]
    found: Any = claims
    for part in claim.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found
