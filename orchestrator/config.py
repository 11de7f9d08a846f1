"""What an operator sets for the orchestrator: `orchestrator.toml`, see `common.config`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from common.config import Address, FileSettings, is_loopback
from common.errors import UnavailableError
from common.http2 import Http2Settings, Options
from common.logs import LogSettings
from common.telemetry import MetricsSettings, TraceSettings
from common.tls import PEOPLE, Role, TlsFiles

GIB = 1 << 30
_EVERYWHERE = frozenset({"0.0.0.0", "::", "[::]"})  # noqa: S104 - such an address has no name
_LONGEST_SOCKET_PATH = 107  # bytes that Linux takes


class Limits(BaseModel):
    """How much one caller may ask for, and how much all together may take."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_update_bytes: Annotated[int, Field(gt=0)] = 4 * GIB  # of a gateway, for one round
    max_weights_bytes: Annotated[int, Field(gt=0)] = 4 * GIB  # of an operator, for a run to begin
    max_runs_mib: Annotated[int, Field(gt=0)] | None = None  # beyond it no run starts; None: any

    # of one caller, by the name in its certificate
    requests_per_s: Annotated[float, Field(gt=0)] = 50.0  # of one caller, for long
    requests_at_once: Annotated[int, Field(ge=1)] = 200  # of one caller, after a pause
    streams: Annotated[int, Field(ge=1)] = 64  # one caller's calls under way, Watch among them
    uploads: Annotated[int, Field(ge=1)] = 4  # of these, calls that bring a body
    bodies_per_round: Annotated[int, Field(ge=2)] = 16  # so many times its update, repeats counted

    # of all callers together
    in_flight_mib: Annotated[int, Field(ge=32)] = 2048  # bodies on their way in or out, in memory
    disk_reserve_mib: Annotated[int, Field(ge=0)] = 256  # that no body may take from the disks
    connections: Annotated[int, Field(ge=1)] = 4096  # of all callers together

    # of one connection
    streams_per_connection: Annotated[int, Field(ge=1)] = 100  # calls under way on one
    handshake_s: Annotated[float, Field(gt=0)] = 10.0  # for TLS and the beginning of HTTP/2
    first_message_s: Annotated[float, Field(gt=0)] = 30.0  # from the call's headers on

    def server_options(self) -> Options:
        """Return gRPC's settings of a server that keeps to those of connections."""
        return [
            ("grpc.max_allowed_incoming_connections", self.connections),
            ("grpc.max_concurrent_streams", self.streams_per_connection),
            ("grpc.server_handshake_timeout_ms", round(1000 * self.handshake_s)),
        ]


def _are_peoples(roles: dict[str, Role]) -> dict[str, Role]:
    if not PEOPLE.issuperset(roles.values()):
        msg = f"a token can give no other role than {', '.join(sorted(PEOPLE))}"
        raise ValueError(msg)
    return roles


class SecretMissing(UnavailableError):
    """The page's secret at the provider cannot be read."""

    field = "oidc.client_secret_file"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} cannot be read: whoever runs the orchestrator puts the secret there that the "
            "provider gave the page, or takes client_secret_file out of [oidc]"
        )


class OidcSettings(BaseModel):
    """How people sign in with tokens of an OpenID Connect provider instead of certificates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: Annotated[str, Field(pattern=r"^https://[^/?#\s]+[^?#\s]*$")]  # as in the tokens
    audience: Annotated[str, Field(min_length=1)]  # the tokens that are meant for this federation
    roles: Annotated[dict[str, Role], Field(min_length=1), AfterValidator(_are_peoples)]  # by group
    groups_claim: str = "groups"  # where a token lists its holder's groups; dots lead into tables
    name_claim: str = "sub"  # where a token says who its holder is
    address: Address = "127.0.0.1:8445"  # where people call; port 0: any free one
    authority: Path | None = None  # of the provider's own certificate, PEM; None: the system's
    client_id: Annotated[str, Field(min_length=1)] | None = None  # of the page; None: links alone
    client_secret_file: Path | None = None  # where the provider has given the page a secret
    scope: Annotated[str, Field(pattern=r"^openid( .+)?$")] = "openid profile groups"
    """What the page asks of the provider, so that the ID token lists the groups."""

    def client_secret(self) -> str | None:
        """Return the page's secret at the provider, as its file has it now; raise SecretMissing."""
        if self.client_secret_file is None:
            return None
        try:
            return self.client_secret_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SecretMissing(self.client_secret_file) from error


class FourEyesSettings(BaseModel):
    """What one person alone cannot do."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[str, ...] = ()  # names of RPCs, such as CancelRun
    within_s: Annotated[int, Field(ge=60, le=30 * 86400)] = 86400  # the second person's time


class WebSettings(BaseModel):
    """Where the page is served, for people with a browser."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Address = "127.0.0.1:8080"  # port 0: any free one; TLS unless it is loopback's
    url: Annotated[str, Field(pattern=r"^https?://[^/?#\s]+$")] | None = None  # as browsers see it
    session_hours: Annotated[float, Field(gt=0, le=24)] = 8.0  # then people sign in again

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can come here."""
        return is_loopback(self.address.rpartition(":")[0].strip("[]"))

    @property
    def own_url(self) -> str:
        """How browsers come here, but for a port that is not known yet."""
        return self.url or f"{'http' if self.is_loopback else 'https'}://{self.address}"

    @model_validator(mode="after")
    def _has_a_name(self) -> Self:
        if self.url is None and self.address.rpartition(":")[0] in _EVERYWHERE:
            msg = (
                f"address {self.address} is every address of this machine: say by which name "
                'browsers come here, such as url = "https://fed.example.org:8080"'
            )
            raise ValueError(msg)
        seen = urlsplit(self.own_url)
        if seen.scheme == "http" and not is_loopback(seen.hostname or ""):
            msg = (
                f"url {self.url} leads sessions over the network in the clear: let it begin with "
                "https, and a proxy speak TLS if the page's own certificate does not suit"
            )
            raise ValueError(msg)
        return self


class Enrolment(BaseModel):
    """Where members enrol, and the authority that signs them here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: Address = "127.0.0.1:8444"  # of the listener that asks for no client certificate
    advertised: Address | None = None  # as tokens name it; None: `address`
    certificate: Path  # of the intermediate authority, PEM
    key: Path  # its private key, PEM
    gateway_days: Annotated[float, Field(gt=0, le=90)] = 7.0  # that a gateway's is valid
    member_days: Annotated[float, Field(gt=0, le=90)] = 30.0  # that a person's is

    def lifetime(self, role: Role) -> timedelta:
        """Return how long a certificate for `role` is valid."""
        days = self.gateway_days if role is Role.GATEWAY else self.member_days
        return timedelta(days=days)


class OrchestratorConfig(FileSettings):
    """Everything that an orchestrator is told."""

    federation: Annotated[str, Field(min_length=1, max_length=63)]  # as in the certificates
    state: Path = Path("state/orchestrator")  # everything that is kept
    shared: Path | None = None  # weights and signing key, where a standby has them too
    tls: TlsFiles
    enrolment: Enrolment | None = None  # None: nobody enrols here, and nothing is renewed
    address: Address = "127.0.0.1:8443"  # port 0: any free one
    database: str = ""  # an SQLAlchemy URL; empty: SQLite in the state folder
    database_password_file: Path | None = None  # holds the password that the URL then has not
    health_socket: Path | None = None  # for exec probes; default: `<state>/health.sock`
    restart_grace_s: Annotated[float, Field(ge=0)] = 10.0  # least time for a round after a restart
    drain_s: Annotated[float, Field(ge=0)] = 5.0  # for calls under way at shutdown
    limits: Limits = Limits()
    oidc: OidcSettings | None = None
    four_eyes: FourEyesSettings = FourEyesSettings()
    web: WebSettings | None = None  # None: there is no page
    http2: Http2Settings = Http2Settings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings | None = None  # None: no figures are served
    traces: TraceSettings | None = None  # None: nothing is traced

    @model_validator(mode="after")
    def _socket_path_fits(self) -> Self:
        length = len(bytes(self.health_socket_path.absolute()))
        if length > _LONGEST_SOCKET_PATH:
            msg = (
                f"the path of health_socket has {length} bytes, a Unix socket's takes at most "
                f"{_LONGEST_SOCKET_PATH}: name a shorter one"
            )
            raise ValueError(msg)
        return self

    @property
    def health_socket_path(self) -> Path:
        """Where exec probes find the health service."""
        return self.health_socket or self.state / "health.sock"

    @property
    def address_file(self) -> Path:
        """Where the address that is served is written, while it is."""
        return self.state / "address"

    @property
    def enrolment_address_file(self) -> Path:
        """Where the address that members enrol at is written, while it is served."""
        return self.state / "enrolment-address"

    @property
    def web_address_file(self) -> Path:
        """Where the page's URL is written, while it is served."""
        return self.state / "web-address"

    @property
    def metrics_address_file(self) -> Path:
        """Where the address that Prometheus reads from is written, while it is served."""
        return self.state / "metrics-address"

    @property
    def journal_file(self) -> Path:
        """Where the journal is kept if `database` names no other place."""
        return self.state / "journal.db"
