"""People sign in to the page with a real OpenID Connect provider, in a browser without a window."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest

from common.membership import Member
from common.tls import Role
from orchestrator.config import WebSettings
from orchestrator.tokens import SKEW_S
from tests.page import Visitor, visitor
from tests.provider import Provider
from tests.service.orchestrator.test_sign_in import (
    HOUR_S,
    Desk,
    desk_with,
    lasting_provider,
)

__all__ = ["lasting_provider"]
CLIENT = "fedgate-page"
BEGIN, DONE = "/sign-in/provider", "/sign-in/provider/done"


@dataclass
class Entry:
    """A page whose people come from a provider."""

    desk: Desk
    url: str

    @property
    def provider(self) -> Provider:
        return self.desk.provider

    def sits_there(self, **changes: object) -> None:
        """Have somebody sit at the browsers that come to the provider."""
        claims = self.desk.claims(aud=None, **changes)
        self.provider.sign_in(claims)

    async def sent_back(self, one: Visitor) -> str:
        """Take a browser to the provider; return where it is sent back to."""
        answer = await one.get(BEGIN)
        assert answer.status_code == 303, answer.text
        where = answer.headers["location"]
        return await asyncio.to_thread(self.provider.authorize, where)

    async def signed_in(self, one: Visitor) -> str:
        """Take a browser all the way; return what it is asked to confirm."""
        shown = await one.get(await self.sent_back(one))
        assert shown.status_code == 200, shown.text
        token = shown.text.split('name="token" value="')[1].split('"')[0]
        assert (await one.post("/sign-in", token=token)).status_code == 303
        return shown.text


@pytest.fixture
async def entry(federation, lasting_provider, tmp_path) -> AsyncIterator[Entry]:
    web = WebSettings(address="127.0.0.1:0")
    federation.config = federation.config.model_copy(update={"web": web})
    async for desk in desk_with(federation, lasting_provider, tmp_path, client_id=CLIENT):
        made = Entry(desk, federation.server.page_url)
        made.sits_there()
        yield made


@pytest.fixture
async def browser(entry) -> AsyncIterator[Visitor]:
    async with visitor(entry.url) as one:
        yield one


async def test_a_person_signs_in_with_the_provider_and_has_the_roles_of_the_token(entry, browser):
    assert "Sign in with https://127.0.0.1" in (await browser.get("/")).text
    assert "signs in <b>olga</b>, operator, once" in await entry.signed_in(browser)
    assert (await browser.get("/start")).status_code == 200
    assert (await browser.get("/records")).status_code == 403


async def test_what_is_asked_of_the_provider_is_what_the_standard_wants(entry, browser):
    where = urlsplit((await browser.get(BEGIN)).headers["location"])
    asked = {name: value for name, (value,) in parse_qs(where.query).items()}
    assert f"{where.scheme}://{where.netloc}" == entry.provider.issuer
    assert asked["redirect_uri"] == f"{entry.url}{DONE}"
    assert (asked["client_id"], asked["code_challenge_method"]) == (CLIENT, "S256")
    assert asked["scope"].split()[0] == "openid"
    assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3


async def test_coming_back_alone_signs_nobody_in(entry, browser):
    await browser.get(await entry.sent_back(browser))
    assert (await browser.get("/")).status_code == 401


async def test_who_comes_back_in_another_browser_is_not_signed_in(entry, browser):
    back = await entry.sent_back(browser)
    async with visitor(entry.url) as other:
        refused = await other.get(back)
    assert refused.status_code == 401
    assert "another browser" in refused.text


async def test_an_answer_serves_once(entry, browser):
    back = await entry.sent_back(browser)
    assert (await browser.get(back)).status_code == 200
    again = await browser.get(back)
    assert again.status_code == 401
    assert "ended already" in again.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": "x"}, "not here"),
        ({"code": "x"}, "refuses what it is asked for"),
        ({"iss": "https://elsewhere.example"}, "another provider"),
        ({"error": "access_denied"}, "access_denied"),
    ],
)
async def test_an_answer_that_was_changed_signs_nobody_in(entry, browser, change, said):
    back = urlsplit(await entry.sent_back(browser))
    query = urlencode({**dict(parse_qsl(back.query)), **change})
    refused = await browser.get(f"{back.path}?{query}")
    assert refused.status_code == 401
    assert said in refused.text


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"nonce": "another"}, "made for another sign-in"),
        ({"aud": "fedgate"}, "meant for another audience"),
        ({"aud": [CLIENT, "other"], "azp": "other"}, "made for another client"),
        ({"iss": "https://elsewhere.example"}, "of another issuer"),
        ({"exp": 0}, "has expired"),
    ],
)
async def test_an_id_token_that_was_not_made_for_this_signs_nobody_in(entry, browser, claims, said):
    entry.provider.sign_in(entry.desk.claims(**{"aud": None, **claims}))
    refused = await browser.get(await entry.sent_back(browser))
    assert refused.status_code == 401
    assert said in refused.text


async def test_who_has_no_role_is_told_so(entry, browser):
    entry.sits_there(groups=["staff"])
    refused = await browser.get(await entry.sent_back(browser))
    assert refused.status_code == 403
    assert "is in no group" in refused.text


async def test_a_session_ends_with_its_token(entry, browser):
    await entry.signed_in(browser)
    entry.desk.federation.clock.advance(HOUR_S + SKEW_S)
    assert (await browser.get("/")).status_code == 401


async def test_who_is_revoked_sees_nothing_more(entry, browser):
    await entry.signed_in(browser)
    entry.desk.federation.server.members.roster.revoke(Member(Role.OPERATOR, "olga"), "ada")
    assert (await browser.get("/")).status_code == 401


async def test_without_a_client_there_are_links_alone(federation, lasting_provider, tmp_path):
    web = WebSettings(address="127.0.0.1:0")
    federation.config = federation.config.model_copy(update={"web": web})
    async for _ in desk_with(federation, lasting_provider, tmp_path):
        async with visitor(federation.server.page_url) as nobody:
            assert "Sign in with" not in (await nobody.get("/sign-in")).text
            assert (await nobody.get(BEGIN)).status_code == 401
