"""The gateway's own page over HTTP: for the site's people, on this machine alone."""

from __future__ import annotations

import stat
from contextlib import asynccontextmanager

import pytest
import tomli_w
from pydantic import ValidationError
from structlog.testing import capture_logs
from typer.testing import CliRunner

from common.listening import AddressTaken
from common.protocol import RunState
from common.tls import Role
from common.web.answers import HEADERS
from gateway.cli import app as fedgate_gateway
from gateway.config import SitePageSettings
from gateway.egress import MANIFEST
from gateway.policy import Policy
from gateway.web.asked import FILE, Asked
from gateway.web.server import serving_site_page
from gateway.web_links import ADDRESS, FOLDER, LINK_S, MOST_LINKS
from gateway.workshop import Workshop
from tests.at_work import SITE, plan_for, refusal, settings
from tests.certificates import Authority
from tests.fakes import until
from tests.page import token_in, visitor
from tests.site_page import LABELS, site_at_work, site_page
from tests.tiny_task import TASK

VIEWS = ("/", "/events", "/switch", "/nowhere")
CHUNK = "SubmitUpdateRequest.chunk.data"


@pytest.fixture
def config(tmp_path):
    """A gateway whose ledger is new."""
    files = Authority.make(tmp_path / "keys").issue(Role.GATEWAY, SITE)
    state = tmp_path / "state"
    made = settings(state, files, LABELS)
    Workshop(SITE, made, TASK, None).close()
    return made


@pytest.fixture
async def served(config):
    async with site_page(config) as page:
        yield page


@pytest.fixture
async def somebody(served):
    async with served.signed_in() as one:
        yield one


@pytest.mark.parametrize("path", VIEWS)
async def test_nobody_without_a_session_sees_anything_but_the_way_to_sign_in(served, path):
    async with visitor(served.url) as nobody:
        answer = await nobody.get(path)
    assert answer.status_code == 401
    assert "fedgate-gateway web link" in answer.text
    assert not any(word in answer.text for word in ("Sign out", "epsilon", "Pause"))


async def test_nobody_without_a_session_turns_the_switch(served):
    async with visitor(served.url) as nobody:
        assert (await nobody.post("/pause", csrf="x")).status_code == 401
    assert not served.pause.is_on


async def test_a_link_that_is_only_looked_at_stays_good_and_signs_in_once(served):
    link = served.link()
    async with visitor(served.url) as first, visitor(served.url) as second:
        assert "signs this browser in" in (await first.get(link)).text
        assert (await first.post("/sign-in", token=token_in(link))).status_code == 303
        assert (await first.get("/")).status_code == 200
        assert (await second.get(link)).status_code == 401
        again = await second.post("/sign-in", token=token_in(link))
        assert again.status_code == 401
        assert "this link was used" in again.text


@pytest.mark.parametrize("token", ["", "x", "../ledger.sqlite", "../../keys"])
async def test_what_was_no_link_signs_nobody_in_and_leaves_all_files(served, token):
    before = sorted(served.config.state.iterdir())
    async with visitor(served.url) as nobody:
        assert (await nobody.post("/sign-in", token=token)).status_code == 401
    assert sorted(served.config.state.iterdir()) == before


async def test_a_link_that_is_too_old_signs_nobody_in(served):
    link = served.link()
    served.clock.advance(LINK_S)
    async with visitor(served.url) as nobody:
        assert (await nobody.post("/sign-in", token=token_in(link))).status_code == 401


async def test_of_a_link_only_a_hash_lies_on_the_disk_for_its_owner_alone(served):
    link = served.link()
    (file,) = (served.config.state / FOLDER).iterdir()
    assert token_in(link) not in f"{file.name} {file.read_text()}"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


async def test_of_links_that_nobody_uses_the_oldest_go(served):
    oldest = served.link()
    for _ in range(MOST_LINKS):
        served.clock.advance(1.0)
        newest = served.link()
    assert len(list((served.config.state / FOLDER).iterdir())) == MOST_LINKS
    async with visitor(served.url) as one:
        assert (await one.post("/sign-in", token=token_in(oldest))).status_code == 401
        assert (await one.post("/sign-in", token=token_in(newest))).status_code == 303


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "192.0.2.1:8090", "evil{.example", "localhost@evil"],
)
async def test_a_name_that_is_led_to_this_machine_gets_nothing(served, host):
    async with served.signed_in() as one:
        answer = await one.http.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "epsilon" not in answer.text


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1:9000", "[::1]:9000"])
async def test_who_comes_through_a_tunnel_by_another_port_is_answered(somebody, host):
    assert (await somebody.http.get("/", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/static/fedgate.css", "/nowhere", "/events"])
async def test_every_answer_has_the_headers_that_keep_others_out(somebody, path):
    async with somebody.http.stream("GET", path) as response:
        assert {name: response.headers[name] for name in HEADERS} == HEADERS


async def test_the_cookie_is_for_this_page_alone(served):
    async with visitor(served.url) as one:
        answer = await one.post("/sign-in", token=token_in(served.link()))
    cookie = answer.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Max-Age=28800"))


async def test_a_session_ends_with_its_time(served, somebody):
    served.clock.advance(8 * 3600.0)
    assert (await somebody.get("/")).status_code == 401


async def test_who_signs_out_sees_nothing_more(somebody):
    kept = dict(somebody.http.cookies)
    assert (await somebody.post("/sign-out", csrf=await somebody.csrf())).status_code == 303
    for name, value in kept.items():
        somebody.http.cookies.set(name, value)
    assert (await somebody.get("/")).status_code == 401


async def test_the_switch_pauses_and_lets_go_on(served, somebody):
    assert "Pause gateway a?" in (await somebody.get("/switch")).text
    csrf = await somebody.csrf()
    assert (await somebody.post("/pause", csrf=csrf)).status_code == 303
    assert served.pause.is_on
    assert "Paused since 2030-01-01 00:00 UTC" in (await somebody.get("/")).text
    assert "Let gateway a go on?" in (await somebody.get("/switch")).text
    assert (await somebody.post("/resume", csrf=csrf)).status_code == 303
    assert not served.pause.is_on


async def test_a_folder_that_takes_no_file_pauses_nothing_and_that_is_said(served, somebody):
    csrf = await somebody.csrf()
    folder, aside = served.config.state, served.config.state.with_name("aside")
    folder.rename(aside)
    try:
        answer = await somebody.post("/pause", csrf=csrf)
    finally:
        aside.rename(folder)
    assert answer.status_code == 400
    assert "cannot be written to" in answer.text
    assert not served.pause.is_on


@pytest.mark.parametrize("form", ["nothing", "another session's", "another origin"])
async def test_the_switch_is_not_turned_by_a_form_that_is_not_of_this_session(
    served, somebody, form
):
    async with served.signed_in() as other:
        fields = {} if form == "nothing" else {"csrf": await other.csrf()}
    origin = "https://elsewhere.example" if form == "another origin" else ""
    fields = {"csrf": await somebody.csrf()} if form == "another origin" else fields
    assert (await somebody.post("/pause", origin, **fields)).status_code == 403
    assert not served.pause.is_on


async def test_what_is_no_page_says_where_to_begin_and_a_wrong_method_is_refused(somebody):
    assert "begin with the first one" in (await somebody.get("/nowhere")).text
    assert (await somebody.http.delete("/")).status_code == 405


async def test_a_pause_by_the_command_shows_on_the_page_as_it_happens(served, somebody):
    async with somebody.events("/events") as parts:
        assert "taking part" in await anext(parts)
        served.pause.turn_on(served.clock.wall())
        part = await anext(parts)
    assert ">paused<" in part
    assert 'id="left"' not in part, "a part that has not changed was sent"


async def test_a_ledger_that_cannot_be_read_is_said_and_the_rest_is_shown(served, somebody):
    (served.config.state / "ledger.sqlite").write_bytes(b"no database" * 100)
    served.notes.ring()
    text = (await somebody.get("/")).text
    assert "the ledger cannot be used" in text
    assert "What left" in text


@asynccontextmanager
async def after_a_run(federation, folder, **changes):
    """Lend somebody at the page of a site, of which a run of two rounds has asked something."""
    files = federation.authority.issue(Role.GATEWAY, SITE)
    config = settings(folder / "site", files, LABELS).model_copy(update=changes)
    plan, initial = plan_for(TASK, LABELS, units=60, rounds={"count": 2, "maximum": 2})
    async with federation.serving():
        operator = await federation.start(plan, initial=initial)
        async with site_at_work(federation.address, files, config) as page:
            over = await until(operator, lambda s: s.has_ended or refusal(s) is not None)
            async with page.signed_in() as one:
                yield page, one, (plan, over)


async def test_after_a_run_the_page_says_what_was_asked_spent_and_sent(federation, tmp_path):
    policy = Policy(epsilon_budget=8.0)
    async with after_a_run(federation, tmp_path, policy=policy) as (page, one, (plan, over)):
        assert over.state is RunState.COMPLETED
        text = (await one.get("/")).text
        sent = page.tally.of(CHUNK)
        assert sent.byte_length == 2 * plan.update_form.byte_length
    asked, left = text.split('id="asked"')[1].split('id="left"')
    assert ">accepted<" in asked
    assert "<td>olga</td>" in asked
    assert '20 <small class="source default">' in asked  # the noise multiplier
    ledger = text.split('id="ledger"')[1].split('id="asked"')[0]
    assert "of a budget of 8" in ledger
    assert ledger.count('<th scope="row">r</th>') == 2
    assert "2 counted" in text
    assert all(field in left for field in MANIFEST)


async def test_the_sentence_of_a_refusal_is_here_and_outlives_the_process(federation, tmp_path):
    policy = Policy(epsilon_budget=8.0, noise_multiplier_floor=50.0)
    async with after_a_run(federation, tmp_path, policy=policy) as (page, one, (_, over)):
        text = (await one.get("/")).text
        assert "lower policy.noise_multiplier_floor" in text.split('id="asked"')[1]
        assert "lower policy" not in repr(over)
        assert "Nothing was charged yet" in text
        (kept,) = Asked(page.config.state).plans
    assert (kept.run, kept.is_accepted, kept.signer) == ("r", False, "olga")


async def test_what_was_asked_is_begun_anew_where_its_file_is_damaged(config):
    (config.state / FILE).write_text("{")
    with capture_logs() as logged:
        assert Asked(config.state).plans == ()
    assert logged[0]["event"] == "asked_unreadable"


@pytest.mark.parametrize("address", ["0.0.0.0:8090", "192.0.2.1:8090", "site.example:8090"])
def test_an_address_that_others_reach_is_refused_with_one_sentence(address):
    with pytest.raises(ValidationError, match="for this machine alone"):
        SitePageSettings(address=address)


async def test_an_address_that_is_taken_is_named(served, config):
    taken = SitePageSettings(address=served.url.removeprefix("http://"))
    with pytest.raises(AddressTaken, match=r"another `web\.address`"):
        async with serving_site_page(taken, config, (SITE, None), served.tally, served.clock):
            pass


async def test_the_address_is_in_a_file_for_as_long_as_it_is_served(config):
    async with site_page(config) as page:
        assert (config.state / ADDRESS).read_text() == page.url
    assert not (config.state / ADDRESS).exists()


@pytest.fixture
def settings_file(config, tmp_path):
    path = tmp_path / "gateway.toml"
    tables = config.model_dump(mode="json", exclude_none=True, exclude={"trust"})
    path.write_text(tomli_w.dumps({**tables, "trust": {"plan_keys": "unused"}}))
    return path


def said(*words: str) -> str:
    ran = CliRunner().invoke(fedgate_gateway, [*words])
    return f"{ran.output}{ran.exception or ''}"


def test_the_commands_turn_the_same_switch(config, settings_file):
    where = ("--config", str(settings_file))
    assert "paused since" in said("pause", *where)
    assert (config.state / "paused").exists()
    assert '"paused": true' in said("pause", *where, "--format", "json")
    assert "takes part in the next round" in said("resume", *where)
    assert not (config.state / "paused").exists()


def test_where_there_is_no_folder_nothing_is_paused_and_that_is_said(config, settings_file):
    said_of = settings_file.read_text().replace(str(config.state), str(config.state / "gone"))
    settings_file.write_text(said_of)
    assert "gone" in said("pause", "--config", str(settings_file))


async def test_the_command_prints_a_link_that_is_taken(config, settings_file):
    async with site_page(config) as page:
        printed = said("web", "link", "--config", str(settings_file))
        assert page.url in printed
        assert "fedgate-gateway" not in printed


def test_where_no_page_is_served_no_link_is_given(settings_file):
    printed = said("web", "link", "--config", str(settings_file))
    assert "serves no page now" in printed
    assert "[web]" in printed
