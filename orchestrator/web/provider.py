"""People sign in to the page with the federation's OpenID Connect provider, in their browser.

    /sign-in/provider --> the provider --> /sign-in/provider/done --> "Sign in as ...?" --> session

The code that comes back is worth something to whoever began alone: the state names a beginning, a
cookie proves that it was this browser's, the verifier goes to the provider over our own connection,
and the nonce ties the ID token to the same beginning. A session begins as with any link, by a form.

Source:
    OpenID Connect Core 1.0, section 3.1; RFC 7636, "PKCE"; RFC 9700, section 2.1.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from secrets import compare_digest
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

from starlette.responses import HTMLResponse, RedirectResponse, Response

from common.tls import Identity
from common.web.sessions import fresh_secret, hash_of
from orchestrator.callers import OpenCall, Unauthenticated
from orchestrator.web.pages import page

if TYPE_CHECKING:
    from starlette.requests import Request

    from orchestrator.config import OidcSettings
    from orchestrator.tokens import Tokens
    from orchestrator.web.guard import Guard

DONE = "/sign-in/provider/done"
BEGUN_S = 600.0  # that people have at the provider
MOST_BEGUN = 256  # at a time: the oldest goes


class SignInFailed(Unauthenticated):
    """What came back from the provider signs nobody in."""

    def __init__(self, why: str, issuer: str) -> None:
        super().__init__(f"signing in with {issuer} did not work ({why}): begin again here")


@dataclass(frozen=True)
class _Begun:
    browser: str  # hash of what its cookie holds
    nonce: str
    verifier: str
    ends: float


class ProviderSignIn:
    """Sends people to the provider, and takes them back; lives on the event loop."""

    def __init__(self, guard: Guard, oidc: OidcSettings, client: str, tokens: Tokens) -> None:
        """Be the provider's `client`."""
        self.issuer = oidc.issuer
        self._guard = guard
        self._oidc = oidc
        self._client = client
        self._tokens = tokens
        self._begun: OrderedDict[str, _Begun] = OrderedDict()
        self._now = asyncio.get_running_loop().time

    @property
    def _redirect_uri(self) -> str:
        return f"{self._guard.sessions.url}{DONE}"

    @property
    def _cookie(self) -> str:
        return f"{self._guard.cookie}-provider"

    async def begin(self, request: Request) -> Response:  # noqa: ARG002 - as routes call it
        """Send a browser to the provider."""
        self._guard.count_stranger()
        endpoint = await self._endpoint("authorization_endpoint")
        state, nonce, verifier, browser = (fresh_secret() for _ in range(4))
        self._begun[hash_of(state)] = _Begun(
            hash_of(browser), nonce, verifier, self._now() + BEGUN_S
        )
        while len(self._begun) > MOST_BEGUN:
            self._begun.popitem(last=False)
        challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self._client,
            "redirect_uri": self._redirect_uri,
            "scope": self._oidc.scope,
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        separator = "&" if urlsplit(endpoint).query else "?"
        response = RedirectResponse(f"{endpoint}{separator}{urlencode(asked)}", 303)
        self._set_cookie(response, browser, int(BEGUN_S))
        return response

    async def end(self, request: Request) -> Response:
        """Take a browser back; ask whether it is to be signed in as whom the provider names."""
        self._guard.count_stranger()
        begun = self._of(request)
        if (problem := request.query_params.get("error")) is not None:
            raise self._failed(f"it says {problem[:40]!r}")
        if request.query_params.get("iss", self.issuer) != self.issuer:
            raise self._failed("the answer is of another provider")
        id_token = await self._exchanged(request.query_params.get("code", ""), begun.verifier)
        person = await self._tokens.person_of(id_token, self._client, begun.nonce)
        who = Identity(self._guard.federation, min(person.roles), person.name)
        still = partial(self._tokens.check_time, person.good_until)
        token = self._guard.sessions.token_for(OpenCall(who, still=still, roles=person.roles))
        shown = page("sign_in", token=token, person=self._guard.sessions.whose(token))
        response = HTMLResponse(shown)
        self._set_cookie(response, "", 0)
        return response

    def _of(self, request: Request) -> _Begun:
        """Return the beginning that a browser comes back from, once; raise SignInFailed."""
        begun = self._begun.pop(hash_of(request.query_params.get("state", "")), None)
        if begun is None or begun.ends <= self._now():
            raise self._failed("it was begun too long ago, not here, or ended already")
        if not compare_digest(hash_of(request.cookies.get(self._cookie, "")), begun.browser):
            raise self._failed("it was begun in another browser")
        return begun

    async def _exchanged(self, code: str, verifier: str) -> str:
        """Return the ID token for a code; raise SignInFailed, ProviderAway, ProviderRefuses."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self._redirect_uri,
            "client_id": self._client,
            "code_verifier": verifier,
        }
        if (secret := self._oidc.client_secret()) is not None:
            form["client_secret"] = secret
        endpoint = await self._endpoint("token_endpoint")
        answer = await self._tokens.keys.ask(endpoint, form)
        if not isinstance(found := answer.get("id_token"), str):
            raise self._failed("it gives no ID token")
        return found

    async def _endpoint(self, name: str) -> str:
        found = (await self._tokens.keys.configuration()).get(name)
        if not isinstance(found, str) or not found.startswith("https://"):
            raise self._failed(f"its configuration names no {name}")
        return found

    def _failed(self, why: str) -> SignInFailed:
        return SignInFailed(why, self.issuer)

    def _set_cookie(self, response: Response, secret: str, lasts_s: int) -> None:
        """Know this browser again: it comes back from another site, so not by a strict cookie."""
        is_https = self._guard.sessions.url.startswith("https")
        response.set_cookie(
            self._cookie, secret, max_age=lasts_s, secure=is_https, httponly=True, samesite="lax"
        )
