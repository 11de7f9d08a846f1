"""The demo's folder: keys, settings and plan, written as a person would by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import tomli_w

from cli import pki
from cli.plan_keys import KEY_FILE, PUBLIC_FILE, make_signing_key
from common.tls import Role

if TYPE_CHECKING:
    from pathlib import Path

    from cli.demo.local import LocalFederation

FEDERATION = "demo"


@dataclass(frozen=True)
class Workspace:
    """Where the demo's files lie."""

    folder: Path

    @property
    def plan(self) -> Path:
        """The plan that is run."""
        return self.folder / "plan.toml"

    @property
    def orchestrator(self) -> Path:
        """The orchestrator's settings."""
        return self.folder / "orchestrator.toml"

    @property
    def operator(self) -> Path:
        """The operator's settings."""
        return self.folder / "operator.toml"

    @property
    def signing(self) -> Path:
        """Where the key lies that plans are signed with."""
        return self.folder / "keys" / "plan-signing"

    @property
    def address_file(self) -> Path:
        """Where the orchestrator says which port it listens on."""
        return self.folder / "orchestrator" / "address"

    @property
    def evaluator_cache(self) -> Path:
        """Where the evaluator keeps features of the public splits."""
        return self.folder / "evaluator"

    def gateway(self, site: str) -> Path:
        """A gateway's settings."""
        return self.folder / f"gateway-{site}.toml"

    def gateway_state(self, site: str) -> Path:
        """A gateway's own folder."""
        return self.folder / f"gateway-{site}"


def prepare(folder: Path, settings: LocalFederation) -> Workspace:
    """Make keys, the orchestrator's settings and the plan."""
    workspace = Workspace(folder)
    pki.init(folder / "pki", FEDERATION)
    _issue(workspace, Role.ORCHESTRATOR, "orchestrator")
    _issue(workspace, Role.OPERATOR, "operator")
    make_signing_key(workspace.signing, "operator")
    for site in settings.data:
        _issue(workspace, Role.GATEWAY, site)
    tables = {
        "federation": FEDERATION,
        "address": "127.0.0.1:0",
        "state": str(folder / "orchestrator"),
        "tls": _tls(workspace, "orchestrator"),
        "web": {"address": "127.0.0.1:0"},
    }
    workspace.orchestrator.write_text(tomli_w.dumps(tables), encoding="utf-8")
    workspace.plan.write_text(settings.plan, encoding="utf-8")
    return workspace


def connect(workspace: Workspace, settings: LocalFederation, address: str) -> None:
    """Write the settings of those who call the orchestrator at `address`."""
    signing_key = str(workspace.signing / KEY_FILE)
    operator = {"address": address, "signing_key": signing_key, "tls": _tls(workspace, "operator")}
    workspace.operator.write_text(tomli_w.dumps(operator), encoding="utf-8")
    for site in settings.data:
        tables = {
            "address": address,
            "state": str(workspace.gateway_state(site)),
            "data_set": site,
            "gradients": settings.gradients.value,
            "tls": _tls(workspace, site),
            "trust": {"plan_keys": str(workspace.signing / PUBLIC_FILE)},
            "task": {"reference": settings.reference, "labels": list(settings.labels)},
            "data": dict(settings.data[site]),
            "policy": {"epsilon_budget": settings.epsilon_budget},
        }
        workspace.gateway(site).write_text(tomli_w.dumps(tables), encoding="utf-8")


def _issue(workspace: Workspace, role: Role, name: str) -> None:
    pki.issue(workspace.folder / "pki", role=role, name=name, out=workspace.folder / "keys" / name)


def _tls(workspace: Workspace, name: str) -> dict[str, str]:
    keys = workspace.folder / "keys" / name
    return {
        "authority": str(keys / "ca.pem"),
        "certificate": str(keys / "cert.pem"),
        "key": str(keys / "key.pem"),
    }
