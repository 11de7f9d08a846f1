"""Mailbox, backoff, names, identities, settings: small parts that everything leans on."""

from __future__ import annotations

import asyncio
from itertools import islice

import grpc
import pytest

from common.channel import error_of
from common.errors import (
    AbortedError,
    ConflictError,
    NotFound,
    PermissionRefused,
    RequestError,
    UnavailableError,
)
from common.ids import is_digest, is_name
from common.mailbox import Mailbox
from common.retry import Backoff
from common.tls import Identity, Role, identity_of


async def test_newer_word_takes_the_place_of_older_word_on_the_same_subject():
    box: Mailbox[str, int] = Mailbox()
    for key, value in [("a", 1), ("b", 2), ("a", 3)]:
        box.put(key, value)
    assert [await box.get(), await box.get()] == [("a", 3), ("b", 2)]


async def test_word_put_back_does_not_hide_newer_word():
    box: Mailbox[str, int] = Mailbox()
    box.put("a", 2)
    box.put_back("a", 1)
    box.put_back("b", 1)
    assert [await box.get(), await box.get()] == [("a", 2), ("b", 1)]


async def test_a_reader_waits_for_word_and_leaves_when_the_box_is_closed():
    box: Mailbox[str, int] = Mailbox()
    waiting = asyncio.create_task(box.get())
    await asyncio.sleep(0)
    box.put("a", 1)
    assert await waiting == ("a", 1)
    waiting = asyncio.create_task(box.get())
    await asyncio.sleep(0)
    box.close()
    assert await waiting is None


async def test_word_on_ever_new_subjects_waits_for_room_and_newer_word_does_not():
    box: Mailbox[int, int] = Mailbox(most=2)
    for key in range(2):
        await box.room(key)
        box.put(key, 0)
    await box.room(0)  # it is there already
    waiting = asyncio.create_task(box.room(2))
    await asyncio.sleep(0)
    assert not waiting.done()
    await box.get()
    await asyncio.wait_for(waiting, 10)


def test_waits_double_up_to_the_limit():
    assert list(islice(Backoff(0.1, 0.5).waits(), 5)) == [0.1, 0.2, 0.4, 0.5, 0.5]


@pytest.mark.parametrize("name", ["a", "st-anna", "lab0", "x.y-z", "a" * 63])
def test_plain_names_are_names(name):
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a/b", "../a", "a..b", "a b", "a" * 64])
def test_what_could_not_be_a_file_name_is_no_name(name):
    assert not is_name(name)


def test_a_digest_is_64_lower_case_hexadecimal_digits():
    assert is_digest("0f" * 32)
    assert not is_digest("0F" * 32)
    assert not is_digest("0f" * 31)


def test_an_identity_survives_its_uri():
    identity = Identity("clinics", Role.GATEWAY, "st-anna")
    assert identity.uri == "fed://clinics/gateway/st-anna"
    assert identity_of(identity.uri) == identity


@pytest.mark.parametrize(
    "uri",
    [
        *("", "fed://f/gateway/", "fed://f/root/a", "spiffe://f/gateway/a", "fed://f/gateway/A/b"),
        *("fed://[", "fed://f]/gateway/a"),  # which Python's own parser refuses
    ],
)
def test_another_uri_is_nobody(uri):
    assert identity_of(uri) is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, RequestError),
        (grpc.StatusCode.OUT_OF_RANGE, RequestError),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionRefused),
        (grpc.StatusCode.UNAUTHENTICATED, PermissionRefused),
        (grpc.StatusCode.FAILED_PRECONDITION, ConflictError),
        (grpc.StatusCode.ABORTED, AbortedError),
        (grpc.StatusCode.UNAVAILABLE, UnavailableError),
        (grpc.StatusCode.INTERNAL, UnavailableError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, UnavailableError),
    ],
)
def test_a_status_becomes_the_error_that_says_who_can_mend_it(code, kind):
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="why")
    assert type(error_of(error, "host:1")) is kind


def test_a_certificate_for_another_host_is_said():
    empty = grpc.aio.Metadata()
    details = "Custom verification check failed: Hostname Verification Check failed."
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, empty, empty, details=details)
    assert "issue it with `--host`" in str(error_of(error, "host:1"))


def test_a_failed_handshake_speaks_of_certificates():
    empty = grpc.aio.Metadata()
    code = grpc.StatusCode.UNAVAILABLE
    error = grpc.aio.AioRpcError(code, empty, empty, details="Ssl handshake failed")
    assert "both certificates are of one authority" in str(error_of(error, "host:1"))
