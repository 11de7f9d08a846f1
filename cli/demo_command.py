"""`fedgate demo`."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from common.console import ERRORS, Format, FormatOption, emit_json
from common.key_files import refuse_present
from common.plan import Unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cli.demo.local import LocalFederation
    from cli.demo.result import DemoResult

ModelFolderOption = Annotated[Path, typer.Option(help="Folder for the trained model.")]
KeepOption = Annotated[
    Path | None, typer.Option(help="Keep keys, settings, state and logs in this new folder.")
]
OpenOption = Annotated[
    bool, typer.Option("--open", help="Open the page in a browser, and keep it afterwards.")
]


def demo(  # noqa: PLR0913 - options of a command line
    corpus: Annotated[
        str, typer.Option(help="letters (made up, built in), bc5cdr, en-sites or wnut17.")
    ] = "letters",
    gateways: Annotated[int | None, typer.Option(min=1, help="How many sites take part.")] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds to publish.")] = None,
    target_epsilon: Annotated[float, typer.Option(min=0.01, help="Most that may be spent.")] = 8.0,
    delta: Annotated[float, typer.Option(help="Delta of the privacy statement.")] = 1e-5,
    unit: Annotated[
        Unit | None, typer.Option(help="What is protected; for letters the document if not said.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(envvar="FEDGATE_DATA", help="Where corpora by name lie.")
    ] = None,
    out: ModelFolderOption = Path("model"),
    keep: KeepOption = None,
    open_page: OpenOption = False,  # noqa: FBT002 - an option of a command line
    output: FormatOption = Format.TEXT,
) -> None:
    """Train a private federation on this machine: an orchestrator, gateways, an evaluator.

    Examples:
        fedgate demo

        fedgate demo --rounds 10 --target-epsilon 3 --keep kept
    """
    from cli.demo.settings import DemoPrivacy, demo_settings

    settings = demo_settings(
        corpus,
        gateways=gateways,
        rounds=rounds,
        privacy=DemoPrivacy(target_epsilon, delta, unit),
        data_dir=data_dir,
    )
    run(settings.federation(), keep, out, partial(print_result, output), open_page=open_page)


def run(
    federation: LocalFederation,
    keep: Path | None,
    out: Path,
    show: Callable[[DemoResult], None],
    *,
    open_page: bool,
) -> None:
    """Run a federation with its files in a folder that is kept or not, its model in `out`."""
    with _folder(keep) as folder:
        asyncio.run(_run(federation, folder, out, show, open_page=open_page))


def print_result(output: Format, result: DemoResult) -> None:
    """Print what was found as a table or as an object."""
    if output is Format.JSON:
        emit_json(result)
    else:
        result.print()


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A folder for the demo's files, gone afterwards unless it is to be kept."""
    if keep is not None:
        refuse_present(keep.parent, (keep.name,))
        keep.mkdir(parents=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="fedgate-demo-") as folder:
        yield Path(folder)


async def _run(
    federation: LocalFederation,
    folder: Path,
    out: Path,
    show: Callable[[DemoResult], None],
    *,
    open_page: bool,
) -> None:
    from cli.demo.federation import Demo
    from cli.demo.processes import Processes
    from cli.demo.progress import Progress
    from common.clock import SystemClock

    clock = SystemClock()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, _interrupt)
    async with Processes(folder / "logs") as processes:
        with Progress(clock) as progress:
            demo = Demo(federation, processes, progress, clock, open_page=open_page)
            result = await demo.run(folder, out)
        show(result)
        if open_page and sys.stdin.isatty():
            ERRORS.print("the page stays until you press Enter")
            await _enter()


async def _enter() -> None:
    """Return once a line was typed; Ctrl-C ends the wait, as it would not that of a thread."""
    loop, typed = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), typed.set)
    try:
        await typed.wait()
    finally:
        loop.remove_reader(sys.stdin.fileno())


def _interrupt() -> None:
    """Leave as Ctrl-C does, so that nothing stays behind."""
    signal.raise_signal(signal.SIGINT)
