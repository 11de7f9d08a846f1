"""Who may call what, and which status an error becomes."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from common.errors import ConflictError, UnavailableError
from common.protocol import Versions
from common.tls import Role
from common.transfer import BodyTooLong, DigestMismatch, LengthMismatch
from common.weights import NotFinite
from orchestrator.admission import NotInvited, UnknownRun, WrongParent
from orchestrator.auth import (
    PERMISSIONS,
    ForeignFederation,
    IdentityMissing,
    Person,
    RoleRefused,
    TlsTooOld,
    check_caller,
    check_person,
)
from orchestrator.rpc_errors import status_of
from orchestrator.sessions import VersionMismatch
from protos.federation import v1 as contract

Code = grpc.StatusCode


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFinite("w"), Code.INVALID_ARGUMENT),
        (DigestMismatch(got="1", need="2"), Code.INVALID_ARGUMENT),
        (VersionMismatch(Versions(9, "9.9")), Code.INVALID_ARGUMENT),
        (BodyTooLong(got=2, limit=1), Code.OUT_OF_RANGE),
        (LengthMismatch(got=2, need=1), Code.OUT_OF_RANGE),
        (UnknownRun("r"), Code.NOT_FOUND),
        (NotInvited("run 'r'"), Code.PERMISSION_DENIED),
        (ConflictError("twice"), Code.FAILED_PRECONDITION),
        (UnavailableError("later"), Code.UNAVAILABLE),
        (IdentityMissing(), Code.UNAUTHENTICATED),
        (RoleRefused([Role.GATEWAY], "s"), Code.PERMISSION_DENIED),
    ],
)
def test_each_class_has_its_status(error, code):
    assert status_of(error).code == code.value[0]


def test_a_status_says_the_class_and_the_field_at_fault():
    status, info = status_of(WrongParent(got="1", need="2")), ErrorInfo()
    status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("WrongParent", "fedgate")
    assert info.metadata == {"field": "parent"}


def test_both_sides_versions_are_in_the_refusal():
    text = str(VersionMismatch(Versions(9, "9.9")))
    assert "protocol 9 (software 9.9)" in text
    assert "1 (software " in text


def connection(uri: str = "fed://acme/gateway/a", version: bytes = b"TLSv1.3"):
    return {"ssl_tls_version": [version], "x509_subject_alternative_name": [b"x", uri.encode()]}


FILES = [  # every contract there is: a service in a new file counts as soon as the file is there
    import_module(f"{contract.__name__}.{module.name}")
    for module in iter_modules(contract.__path__)
    if module.name.endswith("_pb2")
]
METHODS = [
    f"/{service.full_name}/{method.name}"
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("role", Role)
def test_each_method_is_for_the_roles_in_the_table(method, role):
    caller = connection(f"fed://acme/{role}/a")
    if role in PERMISSIONS[method]:
        check_caller(caller, method, "acme")
    else:
        with pytest.raises(RoleRefused):
            check_caller(caller, method, "acme")


def test_every_method_has_an_entry_and_no_entry_lacks_a_method():
    assert set(METHODS) == {m for m in PERMISSIONS if m.startswith("/federation.v1.")}


def test_a_method_without_an_entry_is_refused():
    with pytest.raises(RoleRefused):
        check_caller(connection(), "/other.Service/Call", "acme")


def test_no_token_gives_a_machines_role_whatever_it_says():
    for method in METHODS:
        machine = Person("mallory", frozenset({Role.GATEWAY, Role.ORCHESTRATOR}), good_until=1e10)
        with pytest.raises(RoleRefused):
            check_person(machine, method, "acme")


def test_who_has_several_roles_acts_in_one_that_may():
    both = Person("olga", frozenset({Role.VIEWER, Role.OPERATOR}), good_until=1e10)
    caller = check_person(both, "/federation.v1.OperatorService/CancelRun", "acme")
    assert caller.uri == "fed://acme/operator/olga"


def test_old_tls_and_strangers_are_refused():
    with pytest.raises(TlsTooOld, match=r"TLSv1\.2"):
        check_caller(connection(version=b"TLSv1.2"), METHODS[0], "acme")
    with pytest.raises(TlsTooOld, match="not TLS"):
        check_caller({}, METHODS[0], "acme")
    with pytest.raises(ForeignFederation):
        check_caller(connection(), METHODS[0], "other")
    with pytest.raises(IdentityMissing):
        check_caller(connection("https://acme"), METHODS[0], "acme")
