"""The `fedgate-gateway` command.

Each command imports what it needs: a probe that ran every few seconds would else load torch.
"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.config import load_settings
from common.console import ERRORS, OUT, Format, FormatOption, emit_json, emit_table, run_app
from common.errors import RequestError
from common.ids import GatewayId
from common.tls import Role, identity_of
from gateway.config import GatewayConfig
from gateway.presence import is_present, write_presence

if TYPE_CHECKING:
    from gateway.workshop import Workshop

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="One site's side of a federation: trains on data that never leave it.",
)

ConfigOption = Annotated[Path, typer.Option("--config", help="This gateway's settings, TOML.")]
SeedOption = Annotated[
    int | None,
    typer.Option(
        "--insecure-deterministic",
        help="Seed all randomness, for tests: NOTHING IS PRIVATE, epsilon is reported as null.",
    ),
]
RateOption = Annotated[float, typer.Option(help="Probability that a unit is in a step's batch.")]
StepsOption = Annotated[int, typer.Option(help="Steps in all: rounds times local steps.")]
DeltaOption = Annotated[float, typer.Option(help="Delta of the statement.")]


class NotAGatewaysCertificate(RequestError):
    """The certificate in the settings does not name a gateway."""

    field = "tls.certificate"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} does not name a gateway (fed://<federation>/gateway/<name>): issue one with "
            "`fedgate pki issue --role gateway --name NAME`"
        )


@app.command("run")
def run(
    config: ConfigOption = Path("gateway.toml"),
    seed: SeedOption = None,
) -> None:
    """Take part: register, train when told to, submit, wait; until stopped."""
    from common import logs

    settings = load_settings(GatewayConfig, config)
    logs.configure(settings.log.style, verbose=settings.log.verbose)
    asyncio.run(_run(settings, seed))


async def _run(settings: GatewayConfig, seed: int | None) -> None:
    import structlog

    from common.retry import Backoff
    from gateway.agent import Agent
    from gateway.client import GrpcClient

    log = structlog.get_logger()
    workshop = _workshop(settings, seed)
    if workshop.insecure_deterministic:
        log.warning("NOT PRIVATE: randomness is seeded", seed=seed)
    log.info("data_checked", sentences=workshop.report.sentences, source=workshop.report.source)
    async with GrpcClient(settings.address, settings.tls) as client:
        agent = Agent(
            workshop,
            client,
            Backoff(limit_s=2.0),
            lambda connected: write_presence(settings.state, connected=connected),
        )
        write_presence(settings.state, connected=False)  # an older process may have left another
        working = asyncio.create_task(agent.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, working.cancel)
        try:
            await working
        except asyncio.CancelledError:
            log.info("stopped")
        finally:
            workshop.close()


def _workshop(settings: GatewayConfig, seed: int | None) -> Workshop:
    from common.randomness import InsecureSeed
    from gateway.workshop import Workshop
    from tasks.loading import load_task

    name = gateway_name(settings.tls.certificate)
    insecure = None if seed is None else InsecureSeed(seed, name)
    return Workshop(name, settings, load_task(settings.task.reference), insecure)


def gateway_name(certificate: Path) -> GatewayId:
    """Return the gateway's name in a certificate file; raise NotAGatewaysCertificate."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        raise NotAGatewaysCertificate(certificate) from error
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        identity = identity_of(uri)
        if identity is not None and identity.role is Role.GATEWAY:
            return GatewayId(identity.name)
    raise NotAGatewaysCertificate(certificate)


@app.command("check")
def check(config: ConfigOption = Path("gateway.toml"), output: FormatOption = Format.TEXT) -> None:
    """Check settings, certificate, task and every line of the data; nothing is charged."""
    from tasks.loading import load_task

    settings = load_settings(GatewayConfig, config)
    name = gateway_name(settings.tls.certificate)
    settings.tls.channel_credentials()
    report = load_task(settings.task.reference).check(settings.data, settings.task.labels)
    if output is Format.JSON:
        emit_json({"gateway": name, "data": report, "policy": settings.policy})
        return
    OUT.print(f"{name}: settings, certificate and data are in order")
    rows = [("sentences", report.sentences), ("words", report.words), *report.per_label.items()]
    emit_table(f"{report.source}, {report.split}", ("what", "count"), rows)


@app.command("health")
def health(config: ConfigOption = Path("gateway.toml")) -> None:
    """Say whether this gateway runs and is connected; exit code 0 if so."""
    present = is_present(load_settings(GatewayConfig, config).state)
    ERRORS.print("connected" if present else "not connected")
    raise typer.Exit(0 if present else 1)


@app.command("ledger")
def ledger(
    config: ConfigOption = Path("gateway.toml"),
    delta: DeltaOption = 1e-5,
    seed: SeedOption = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Show everything that was ever charged on this gateway's data, and what it adds up to.

    It only reads, and may be asked while the gateway runs.
    """
    from common.accounting import rounded_up
    from common.randomness import InsecureSeed
    from gateway.ledger import epsilon_of
    from gateway.workshop import open_ledger

    settings = load_settings(GatewayConfig, config)
    insecure = None if seed is None else InsecureSeed(seed, gateway_name(settings.tls.certificate))
    book = open_ledger(settings.state, insecure, exclusive=False)
    charges = [c for c in book.charges() if c.terms.data.name == settings.data_set]
    spent = epsilon_of(book, settings.data_set, delta)
    book.close()
    if output is Format.JSON:
        emit_json({"data_set": settings.data_set, "epsilon": spent, "charges": charges})
        return
    rows = [
        (c.terms.run, c.round, c.event.noise_multiplier, c.event.sampling_rate, c.event.steps)
        for c in charges
    ]
    columns = ("run", "round", "noise multiplier", "sampling rate", "steps")
    emit_table(f"charges on {settings.data_set!r}", columns, rows)
    if spent is None:
        OUT.print("epsilon: none, the randomness was seeded: nothing is private")
    else:
        OUT.print(f"epsilon {rounded_up(spent.pld, 8)} (PLD), {rounded_up(spent.rdp, 8)} (RDP)")
        OUT.print(f"at delta {delta}, {spent.relation} neighbours")


@app.command("epsilon")
def epsilon(
    noise_multiplier: Annotated[float, typer.Option(help="Noise over the clipping norm.")],
    sampling_rate: RateOption,
    steps: StepsOption,
    delta: DeltaOption = 1e-5,
    output: FormatOption = Format.TEXT,
) -> None:
    """Say what steps of the mechanism cost; sampling rate 1 is the plain Gaussian mechanism."""
    from common.accounting import PrivacyEvent, rounded_up
    from common.accounting import epsilon as epsilon_spent

    spent = epsilon_spent([PrivacyEvent(noise_multiplier, sampling_rate, steps)], delta)
    if output is Format.JSON:
        emit_json(spent)
        return
    OUT.print(f"epsilon {rounded_up(spent.pld, 8)} (PLD), {rounded_up(spent.rdp, 8)} (RDP)")
    OUT.print(f"at delta {delta}, {spent.relation} neighbours")


@app.command("noise")
def noise(
    target_epsilon: Annotated[float, typer.Option(help="Most that may be spent, by PLD.")],
    sampling_rate: RateOption,
    steps: StepsOption,
    delta: DeltaOption = 1e-5,
    output: FormatOption = Format.TEXT,
) -> None:
    """Find the least noise multiplier, to four decimals, that keeps to a target epsilon."""
    from common.accounting import PrivacyEvent, noise_for, rounded_up
    from common.accounting import epsilon as epsilon_spent

    found = noise_for(target_epsilon, sampling_rate=sampling_rate, steps=steps, delta=delta)
    spent = epsilon_spent([PrivacyEvent(found, sampling_rate, steps)], delta)
    if output is Format.JSON:
        emit_json({"noise_multiplier": found, **asdict(spent)})
        return
    OUT.print(f"noise multiplier {found}: epsilon {rounded_up(spent.pld, 8)} (PLD)")
    OUT.print(f"at delta {delta}, {spent.relation} neighbours")


def main() -> None:
    """Run the command line."""
    run_app(app)


if __name__ == "__main__":
    main()
