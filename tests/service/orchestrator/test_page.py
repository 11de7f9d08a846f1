"""The page over HTTP: who sees what, how people sign in, and what comes as it happens."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from contextlib import AsyncExitStack
from time import monotonic  # noqa: TID251 - the claim is about real seconds

import pytest
import tomli_w
from pydantic import ValidationError
from sqlalchemy import update as update_of
from typer.testing import CliRunner

from cli.main import app as fedgate
from common.errors import ConflictError, UnavailableError
from common.membership import Member
from common.protocol import Chunk, RunState
from common.tls import PEOPLE, Role
from common.web.answers import HEADERS
from common.web.sessions import MOST_SESSIONS, MOST_STREAMS
from orchestrator.auth import PERMISSIONS
from orchestrator.config import FourEyesSettings, Limits, WebSettings
from orchestrator.database import AUDIT_RECORDS
from orchestrator.server import listening
from orchestrator.web.board import Board
from orchestrator.web.guard import CANCEL_RUN, LIST_RECORDS, LIST_RUNS, START_RUN, WATCH_RUN
from orchestrator.web_sessions import LINK_S
from tests.fakes import plan_of
from tests.page import (
    REFUSING,
    RUN,
    SITES,
    Visitor,
    answered,
    in_state,
    link_of,
    score,
    signed_in,
    token_in,
    update,
    varied_plan,
    visitor,
)

SOON_S = 1.0  # what is promised
VIEWS = {
    "/": LIST_RUNS,
    "/events": LIST_RUNS,
    f"/runs/{RUN}": WATCH_RUN,
    f"/runs/{RUN}/events": WATCH_RUN,
    f"/runs/{RUN}/rounds": WATCH_RUN,
    f"/runs/{RUN}/cancel": CANCEL_RUN,
    "/start": START_RUN,
    "/records": LIST_RECORDS,
}


@pytest.fixture
def paged(federation):
    """A federation whose orchestrator has a page."""
    web = WebSettings(address="127.0.0.1:0")
    federation.config = federation.config.model_copy(update={"web": web})
    return federation


@pytest.fixture
async def served(paged):
    """A run of one round waits for its gateways."""
    async with paged.serving() as server:
        paged.server = server
        await paged.start(varied_plan(1), RUN)
        yield paged


@pytest.fixture
async def olga(served):
    async with signed_in(served, served.server) as operator:
        yield operator


@pytest.fixture
async def sites(served):
    """The gateways have answered the plan: four take part, and one refuses it."""
    gateways = await served.gateways(*SITES, REFUSING)
    await answered(gateways, varied_plan(1))
    return gateways[: len(SITES)]


def live_run(federation):
    return federation.server.orchestrator.runs.get(RUN)


async def status_of(visitor: Visitor, path: str) -> int:
    """Return how a request is answered, without reading all of a stream."""
    async with visitor.http.stream("GET", path) as response:
        return response.status_code


@pytest.mark.parametrize("path", [*VIEWS, f"/runs/{RUN}/model.json", "/nowhere"])
async def test_nobody_without_a_session_sees_anything_but_the_way_to_sign_in(served, path):
    async with visitor(served.server.page_url) as nobody:
        answer = await nobody.get(path)
    assert answer.status_code == 401
    assert "fedgate web link" in answer.text
    assert not any(word in answer.text for word in (*SITES, RUN, "Sign out"))


@pytest.mark.parametrize("role", sorted(PEOPLE))
async def test_every_view_answers_each_role_as_the_table_of_rpcs_says(served, role):
    async with signed_in(served, served.server, role, "somebody") as somebody:
        found = {path: await status_of(somebody, path) for path in VIEWS}
    assert found == {path: 200 if role in PERMISSIONS[rpc] else 403 for path, rpc in VIEWS.items()}


async def test_a_view_that_is_refused_goes_on_record(served):
    async with signed_in(served, served.server, Role.VIEWER, "vera") as vera:
        await vera.get("/records")
    line = served.server.orchestrator.audit.records(0)[-1].record
    assert (line.actor, line.outcome) == ("fed://acme/viewer/vera", "refused")
    assert line.facts == {"method": LIST_RECORDS, "reason": "RoleRefused"}


async def test_a_link_signs_in_once(served):
    link = await link_of(served, Role.OPERATOR, "olga")
    async with visitor(served.server.page_url) as first, visitor(first.url) as second:
        assert (await first.post("/sign-in", token=token_in(link))).status_code == 303
        again = await second.post("/sign-in", token=token_in(link))
        assert again.status_code == 401
        assert "this link was used" in again.text
        assert (await second.get("/")).status_code == 401


async def test_a_link_that_is_only_looked_at_stays_good(served):
    link = await link_of(served, Role.OPERATOR, "olga")
    async with visitor(served.server.page_url) as olga:
        for _ in range(2):
            assert "Sign in as olga" in (await olga.get(link)).text
        assert (await olga.post("/sign-in", token=token_in(link))).status_code == 303


async def test_a_link_that_is_too_old_signs_nobody_in(served):
    link = await link_of(served, Role.OPERATOR, "olga")
    served.clock.advance(LINK_S)
    async with visitor(served.server.page_url) as olga:
        assert (await olga.post("/sign-in", token=token_in(link))).status_code == 401
        assert (await olga.get("/")).status_code == 401


@pytest.mark.parametrize("origin", [None, "null", "https://elsewhere.example"])
async def test_a_form_from_elsewhere_signs_nobody_in_and_uses_nothing_up(served, origin):
    link = await link_of(served, Role.OPERATOR, "olga")
    async with visitor(served.server.page_url) as olga:
        assert (await olga.post("/sign-in", origin, token=token_in(link))).status_code == 403
        assert (await olga.post("/sign-in", token=token_in(link))).status_code == 303


async def test_the_cookie_is_for_this_page_alone(served):
    link = await link_of(served, Role.OPERATOR, "olga")
    async with visitor(served.server.page_url) as olga:
        answer = await olga.post("/sign-in", token=token_in(link))
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert "Max-Age=28800" in cookie
    assert "Path=/" in cookie


async def test_a_session_ends_with_its_time(served, olga):
    served.clock.advance(8 * 3600.0)
    assert (await olga.get("/")).status_code == 401


async def test_who_signs_out_sees_nothing_more(olga):
    kept = dict(olga.http.cookies)
    assert (await olga.post("/sign-out", csrf=await olga.csrf())).status_code == 303
    for name, value in kept.items():
        olga.http.cookies.set(name, value)
    assert (await olga.get("/")).status_code == 401


async def test_who_is_revoked_sees_nothing_more_and_what_they_follow_ends(served, olga):
    async with olga.events(f"/runs/{RUN}/events") as parts:
        await anext(parts)
        served.server.members.roster.revoke(Member(Role.OPERATOR, "olga"), "ada")
        async with asyncio.timeout(5):
            assert [each async for each in parts] == []
    assert (await olga.get("/")).status_code == 401


async def test_of_one_person_only_so_many_sessions_go_on_and_the_oldest_ends(served, olga):
    async with AsyncExitStack() as stack:
        for _ in range(MOST_SESSIONS):
            newest = await stack.enter_async_context(signed_in(served, served.server))
        assert (await olga.get("/")).status_code == 401
        assert (await newest.get("/")).status_code == 200


async def test_a_session_follows_only_so_many_pages(olga):
    async with AsyncExitStack() as stack:
        for _ in range(MOST_STREAMS):
            await stack.enter_async_context(olga.events("/events"))
        refused = await olga.get("/events")
    assert refused.status_code == 429
    assert "close one" in refused.text
    assert refused.headers["retry-after"] == "5"


async def test_who_asks_too_often_is_told_to_wait(paged):
    few = Limits(requests_per_s=0.001, requests_at_once=3)
    paged.config = paged.config.model_copy(update={"limits": few})
    async with paged.serving() as server, signed_in(paged, server) as olga:
        found = [(await olga.get("/")).status_code for _ in range(3)]
    assert found == [200, 200, 429]  # the link was asked for before


async def test_nobody_can_try_links_without_end(paged):
    few = Limits(requests_per_s=0.001, requests_at_once=2)
    paged.config = paged.config.model_copy(update={"limits": few})
    async with paged.serving() as server, visitor(server.page_url) as nobody:
        tries = [await nobody.post("/sign-in", token=f"{n}") for n in range(3)]
    assert [each.status_code for each in tries] == [401, 401, 429]


@pytest.mark.parametrize("path", ["/", "/static/fedgate.css", f"/runs/{RUN}/events", "/nowhere"])
async def test_every_answer_has_the_headers_that_keep_others_out(olga, path):
    async with olga.http.stream("GET", path) as response:
        assert {name: response.headers[name] for name in HEADERS} == HEADERS
    assert "unsafe" not in HEADERS["content-security-policy"]


async def test_a_page_is_kept_nowhere_and_what_it_looks_like_may_be(olga):
    assert (await olga.get("/")).headers["cache-control"] == "no-store"
    assert (await olga.get("/static/fedgate.css")).headers["cache-control"] == "no-cache"


async def test_a_method_that_a_page_does_not_have_is_not_answered(olga):
    assert (await olga.http.delete("/")).status_code == 405


async def test_an_operator_cancels_a_run_and_it_is_on_record_who_did(served, olga):
    answer = await olga.post(f"/runs/{RUN}/cancel", csrf=await olga.csrf())
    assert answer.headers["location"] == f"/runs/{RUN}"
    assert live_run(served).run.state is RunState.CANCELLED
    line = served.server.orchestrator.audit.records(0)[-1].record
    assert (line.actor, line.action) == ("fed://acme/operator/olga", "cancel_run")
    assert "Cancel the run" not in (await olga.get(f"/runs/{RUN}")).text


@pytest.mark.parametrize("form", ["nothing", "another session's", "another origin"])
async def test_a_run_is_not_cancelled_by_a_form_that_is_not_of_this_session(served, olga, form):
    async with signed_in(served, served.server, name="otto") as otto:
        fields = {} if form == "nothing" else {"csrf": await otto.csrf()}
    origin = "" if form != "another origin" else "https://elsewhere.example"
    fields = {"csrf": await olga.csrf()} if form == "another origin" else fields
    assert (await olga.post(f"/runs/{RUN}/cancel", origin, **fields)).status_code == 403
    assert not live_run(served).run.has_ended


async def test_a_form_that_is_too_long_is_not_read(olga):
    answer = await olga.post(f"/runs/{RUN}/cancel", csrf="x" * 5000)
    assert answer.status_code == 400


@pytest.mark.parametrize("role", sorted(PEOPLE - {Role.OPERATOR}))
async def test_nobody_but_an_operator_cancels_a_run(served, role):
    async with signed_in(served, served.server, role, "somebody") as somebody:
        form = await somebody.csrf()
        assert (await somebody.post(f"/runs/{RUN}/cancel", csrf=form)).status_code == 403
        assert "Cancel the run" not in (await somebody.get(f"/runs/{RUN}")).text
    assert not live_run(served).run.has_ended


async def test_what_needs_two_people_needs_two_of_them_here_too(paged):
    two = FourEyesSettings(methods=("CancelRun",), within_s=3600)
    paged.config = paged.config.model_copy(update={"four_eyes": two})
    async with paged.serving() as server, AsyncExitStack() as people:
        await paged.start(varied_plan(1), RUN)
        olga = await people.enter_async_context(signed_in(paged, server))
        otto = await people.enter_async_context(signed_in(paged, server, name="otto"))
        first = await olga.post(f"/runs/{RUN}/cancel", csrf=await olga.csrf())
        assert first.status_code == 409
        assert "needs a second person" in first.text
        second = await otto.post(f"/runs/{RUN}/cancel", csrf=await otto.csrf())
        assert second.status_code == 303
        assert server.orchestrator.runs.get(RUN).run.state is RunState.CANCELLED


async def test_where_no_page_is_served_no_link_is_given(federation):
    async with federation.serving() as server:
        assert server.page_url is None
        with pytest.raises(ConflictError, match=r"add a table \[web\]"):
            await link_of(federation, Role.VIEWER, "vera")


async def test_a_run_shows_where_each_gateway_stands_and_what_it_trains_with(served, olga, sites):
    await update(sites[1], live_run(served))
    text = (await olga.get(f"/runs/{RUN}")).text
    rows = {name: text.split(f'id="gw-{name}"')[1].split("</tr>")[0] for name in (*SITES, REFUSING)}
    assert ">in<" in rows[SITES[1]]
    assert ">away<" in rows[SITES[0]]
    assert ">refused the plan<" in rows[REFUSING]
    assert "epsilon budget" in rows[REFUSING]
    assert '0.05 <small class="source override">' in text
    assert '3 <small class="source profile">' in text


async def test_a_round_says_what_it_moved_and_how_long_its_weights_took(served, olga, sites):
    live = live_run(served)
    for site in sites:
        await update(site, live)
    await in_state(live, lambda run: run.has_ended)
    row = (await olga.get(f"/runs/{RUN}/rounds")).text.split("<tbody>")[1]
    size_of_update = live.run.plan.update_form.byte_length
    assert f'<td class="number">{len(sites) * size_of_update} B</td>' in row
    assert re.search(r'<td class="number">[0-9.]+ s</td><td>published</td>', row)


async def test_what_happens_is_told_within_a_second(served, olga, sites):
    async with olga.events(f"/runs/{RUN}/events") as parts:
        await anext(parts)
        took = [await _told(served, parts, site) for site in sites[:3]]
    assert min(took) < SOON_S  # of three, as machines are busy with other tests


async def _told(served, parts, site) -> float:
    """Have a gateway send its update; return the seconds until its row says so."""
    begun = monotonic()
    await update(site, live_run(served))
    async for part in parts:
        if f'id="gw-{site.name}"' in part and ">in<" in part:
            break
    assert f'id="gw-{SITES[3]}"' not in part, "a row that has not changed was sent"
    return monotonic() - begun


async def test_an_upload_is_followed_while_it_comes(served, olga, sites):
    released, live = asyncio.Event(), live_run(served)
    data = sites[0].body(1)

    async def halting():
        yield Chunk(0, data[:100])
        await released.wait()
        yield Chunk(100, data[100:])

    async with olga.events(f"/runs/{RUN}/events") as parts:
        header = await sites[0].header(RUN, 1, live.run.round.parent, data)
        sending = asyncio.create_task(sites[0].client.submit_update(header, halting()))
        async with asyncio.timeout(10):
            async for part in parts:
                if ">uploading<" in part:
                    break
        released.set()
        await sending
    assert f"100 B of {len(data)} B" in part


async def test_a_new_run_is_in_the_list_soon(served, olga):
    async with olga.events("/events") as parts:
        await anext(parts)
        await served.start(plan_of("z"), "another")
        async with asyncio.timeout(5):
            async for part in parts:
                if "/runs/another" in part:
                    break
    assert 'id="going-on"' in part


async def test_a_run_that_was_cancelled_moves_to_those_that_have_ended(served, olga):
    async with olga.events("/events") as parts:
        await anext(parts)
        served.server.orchestrator.operations.cancel_run(RUN)
        async with asyncio.timeout(5):
            async for part in parts:
                if f"/runs/{RUN}" in part.partition('id="ended"')[2]:
                    break
    assert "cancelled" in part


async def test_a_completed_run_shows_its_scores_and_hands_out_its_models_card(served, olga, sites):
    live = live_run(served)
    for each in sites:
        await update(each, live)
    await in_state(live, lambda run: run.model is not None)
    operator = await served.operator()
    await operator.record_scores(RUN, score(1, live.run.weights, 0.6543))
    text = (await olga.get(f"/runs/{RUN}")).text
    assert ">65.4<" in text
    assert live.run.model_sha256 in text
    card = (await olga.get(f"/runs/{RUN}/model.json")).json()
    assert (card["sha256"], card["scores"]) == (live.run.model_sha256, {"dev": 0.6543})
    assert card["private"] is True
    counted = {each["gateway"]: each["rounds_counted"] for each in card["gateways"]}
    assert counted == {**dict.fromkeys(SITES, 1), REFUSING: 0}
    page = await olga.get(f"/runs/{RUN}/model.md")
    assert page.headers["content-disposition"] == f'attachment; filename="{RUN}-model.md"'
    assert f"`{live.run.model_sha256}`" in page.text
    assert "published" in (await olga.get(f"/runs/{RUN}/rounds")).text


async def test_a_run_without_a_model_has_no_card(olga):
    answer = await olga.get(f"/runs/{RUN}/model.json")
    assert answer.status_code == 409
    assert "has no model" in answer.text


async def test_a_run_that_there_is_none_of_is_not_found(olga):
    assert (await olga.get("/runs/nowhere")).status_code == 404
    assert (await olga.get("/runs/nowhere/events")).status_code == 404


async def test_what_others_wrote_is_text_and_no_markup(olga):
    answer = await olga.get("/runs/%3Cscript%3Ealert(1)")
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;" in answer.text


async def test_the_audit_log_is_shown_page_by_page(served, monkeypatch):
    monkeypatch.setattr("orchestrator.web.site.PAGE", 2)
    monkeypatch.setattr("orchestrator.audit_log.PAGE", 2)
    length = served.server.orchestrator.audit.length()
    async with signed_in(served, served.server, Role.AUDITOR, "ada") as ada:
        newest = (await ada.get("/records")).text
        oldest = (await ada.get("/records?after=0")).text
        strange = (await ada.get("/records?after=-1")).text
    assert f'class="number">{length}<' in newest
    assert "start process" in oldest
    assert "start process" not in newest
    assert strange == newest


async def test_a_record_that_was_changed_is_named(served):
    audit = served.server.orchestrator.audit
    with audit._fence.writing() as connection:
        second = AUDIT_RECORDS.c.sequence == 2
        connection.execute(update_of(AUDIT_RECORDS).where(second).values(body=b"{}"))
    async with signed_in(served, served.server, Role.AUDITOR, "ada") as ada:
        answer = await ada.get("/records")
    assert answer.status_code == 400
    assert "record 2 of the audit log" in answer.text


async def test_a_page_that_is_not_this_machines_alone_is_served_over_tls(paged, monkeypatch):
    monkeypatch.setattr(WebSettings, "is_loopback", False)
    async with paged.serving() as server:
        assert server.page_url.startswith("https://127.0.0.1:")
        link = await link_of(paged, Role.OPERATOR, "olga")
        context = _trusting(paged.config.tls.authority)
        async with visitor(server.page_url, verify=context) as olga:
            answer = await olga.post("/sign-in", token=token_in(link))
            assert answer.headers["set-cookie"].startswith("__Host-fedgate=")
            assert "Secure" in answer.headers["set-cookie"]
            assert (await olga.get("/")).status_code == 200


def _trusting(authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority)


async def test_the_pages_address_is_written_down_while_it_is_served(paged):
    async with paged.serving() as server:
        assert paged.config.web_address_file.read_text() == server.page_url
    assert not paged.config.web_address_file.exists()


async def test_a_restart_signs_everybody_out(paged):
    async with paged.serving() as server, signed_in(paged, server) as olga:
        kept = dict(olga.http.cookies)
    async with paged.serving() as server, visitor(server.page_url) as again:
        for value in kept.values():
            name = f"fedgate-{server.page_url.rpartition(':')[2]}"
            again.http.cookies.set(name, value)
        assert (await again.get("/")).status_code == 401


async def test_a_renewed_certificate_is_shown_to_whoever_comes_next(paged, monkeypatch):
    monkeypatch.setattr(WebSettings, "is_loopback", False)
    async with paged.serving() as server:
        place = ("127.0.0.1", int(server.page_url.rpartition(":")[2]))
        before = await asyncio.to_thread(ssl.get_server_certificate, place)
        fresh, held = paged.authority.issue(Role.ORCHESTRATOR, "orchestrator"), paged.config.tls
        held.key.write_text("half written")
        assert await asyncio.to_thread(ssl.get_server_certificate, place) == before
        for name in ("certificate", "key"):
            getattr(held, name).write_bytes(getattr(fresh, name).read_bytes())
        assert await asyncio.to_thread(ssl.get_server_certificate, place) != before


async def test_two_pages_cannot_have_one_address(served, tmp_path):
    taken = served.server.page_url.removeprefix("http://")
    changes = {"state": tmp_path / "other", "web": WebSettings(address=taken)}
    with pytest.raises(UnavailableError, match=r"set another `web.address`"):
        async with listening(served.config.model_copy(update=changes)):
            pass


async def test_a_connection_on_which_nobody_asks_for_anything_is_closed(served, monkeypatch):
    monkeypatch.setattr("common.web.server.FIRST_S", 0.05)
    host, _, port = served.server.page_url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_what_has_ended_is_followed_for_a_while_and_no_longer(served, olga, monkeypatch):
    monkeypatch.setattr("common.web.stream.ENDED_S", 1.0)
    served.server.orchestrator.operations.cancel_run(RUN)
    async with asyncio.timeout(10), olga.http.stream("GET", f"/runs/{RUN}/events") as response:
        text = (await response.aread()).decode()
    assert text.endswith("event: end\ndata: []\n\n")


async def test_a_bug_says_nothing_of_itself(olga, monkeypatch):
    async def broken(_self, _live):
        raise RuntimeError("the secret cause")

    monkeypatch.setattr(Board, "fragments", broken)
    answer = await olga.get(f"/runs/{RUN}")
    assert answer.status_code == 500
    assert "secret cause" not in answer.text
    assert answer.headers["content-security-policy"] == HEADERS["content-security-policy"]


async def test_links_and_forms_go_by_the_name_that_browsers_know(paged):
    web = WebSettings(address="127.0.0.1:0", url="https://fed.example.org")
    paged.config = paged.config.model_copy(update={"web": web})
    async with paged.serving():
        link = await link_of(paged, Role.OPERATOR, "olga")
        place = paged.config.web_address_file.read_text()
    assert link.startswith("https://fed.example.org/sign-in?token=")
    assert place == "https://fed.example.org"


def test_a_page_on_every_address_needs_a_name():
    with pytest.raises(ValidationError, match="by which name"):
        WebSettings(address="0.0.0.0:8080")
    assert WebSettings(address="0.0.0.0:8080", url="https://fed.example.org:8080").url


@pytest.mark.parametrize("url", ["http://fed.example.org", "http://10.0.0.1:8080"])
def test_no_session_goes_over_the_network_in_the_clear(url):
    with pytest.raises(ValidationError, match="in the clear"):
        WebSettings(url=url)
    for own in ("http://localhost:9000", "http://127.0.0.1", "http://[::1]", "https://fed.org"):
        assert WebSettings(url=own).own_url == own


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1:1", True), ("localhost:1", True), ("[::1]:1", True), ("10.0.0.1:1", False)],
)
def test_an_address_of_this_machine_alone_is_told_from_others(address, loopback):
    assert WebSettings(address=address).is_loopback is loopback
    scheme = "http" if loopback else "https"
    assert WebSettings(address=address).own_url == f"{scheme}://{address}"


async def test_the_command_prints_a_link_that_signs_in(served, tmp_path):
    tls = dict(served.authority.issue(Role.VIEWER, "vera"))
    settings = {"address": served.address, "tls": {name: str(file) for name, file in tls.items()}}
    (tmp_path / "operator.toml").write_text(tomli_w.dumps(settings))
    asked = ["web", "link", "--config", str(tmp_path / "operator.toml")]
    shown = await asyncio.to_thread(CliRunner().invoke, fedgate, asked)
    told = await asyncio.to_thread(CliRunner().invoke, fedgate, [*asked, "--format", "json"])
    assert shown.exit_code == told.exit_code == 0
    links = [shown.stdout.split()[-1], json.loads(told.stdout.splitlines()[-1])["url"]]
    async with visitor(served.server.page_url) as vera:
        for link in links:
            assert "Sign in as vera" in (await vera.get(link)).text
