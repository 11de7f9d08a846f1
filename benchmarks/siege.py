"""Whether rounds close while members of the federation attack it with all that is limited.

    python -m benchmarks.siege [--half-open 1000] [--gateways 8] [--mib 1] [--rounds 100]

One JSON line. The orchestrator, the gateways and the attackers are processes of their own, each
caller with a certificate and mTLS. At once come: calls whose first message never does, ten times
the calls that a caller may make, a message that is a thousand times as long as its bytes, and
connections on which not even TLS begins. Rounds are measured before and during that, and how much
more memory the orchestrator takes.
"""

from __future__ import annotations

import json
import statistics
import time  # noqa: TID251 - measures
from dataclasses import asdict, dataclass
from math import ceil
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.machine import described
from benchmarks.transport.attack_process import Attack
from benchmarks.transport.federation import Federation, Setting
from benchmarks.transport.model import DEADLINE_S
from benchmarks.transport.places import state_folder
from common.tls import Role
from orchestrator.config import Limits

LIMITS = Limits()
SETTLED_S = 3.0  # for what is under way when the attack begins
ATTEMPTS_S = 1.0  # between two looks at it
MOST_LOOKS = 120


class Besieged(Federation):
    """A federation with attackers among its members."""

    def attacked(self, attack: Attack, holding: int) -> None:
        """Let `holding` attackers and two more begin; return once all of it is under way."""
        names = [f"mallory-{number}" for number in range(holding + 2)]
        for name in names:
            self._keys(Role.GATEWAY, name)
        folder = str(self._setting.folder)
        self._start("attack", folder, self._address, json.dumps(asdict(attack)), *names)
        wanted = attack.half_open * holding
        for _ in range(MOST_LOOKS):
            time.sleep(ATTEMPTS_S)
            seen = self.ended
            if seen.get("open", 0) >= wanted and seen.get("bomb RESOURCE_EXHAUSTED"):
                break
        else:
            raise TimeoutError(f"the attack did not come about: {self.ended}")
        time.sleep(SETTLED_S)

    @property
    def ended(self) -> dict[str, int]:
        """How the attackers' calls have ended so far, and how many are open."""
        lines = (self._setting.folder / "attack-0.log").read_text().splitlines()
        said = [line for line in lines if line.startswith("{")]
        found: dict[str, int] = json.loads(said[-1]) if said else {}
        return found


@dataclass(frozen=True)
class Found:
    """What was measured."""

    calm_s: tuple[float, ...]  # rounds before
    besieged_s: tuple[float, ...]  # and during the attack
    calm_peak_mib: float
    besieged_peak_mib: float
    correct: bool
    ended: dict[str, int]

    @property
    def grew_mib(self) -> float:
        """How much more memory the orchestrator took at most."""
        return self.besieged_peak_mib - self.calm_peak_mib

    def line(self) -> dict[str, Any]:
        """Return it as the result shows it."""
        return {
            "calm_round_median_s": round(statistics.median(self.calm_s), 3),
            "round_median_s": round(statistics.median(self.besieged_s), 3),
            "round_max_s": round(max(self.besieged_s), 3),
            "deadline_s": DEADLINE_S,
            "orchestrator_peak_rss_mib": round(self.besieged_peak_mib),
            "orchestrator_grew_mib": round(self.grew_mib, 1),
            "correct": self.correct,
            "ended": self.ended,
        }


def measure(federation: Besieged, rounds: int, attack: Attack, holding: int) -> Found:
    """Measure so many rounds in peace, and as many under attack."""
    calm = federation.rounds(rounds)
    calm_peak = federation.orchestrator_peak_mib
    federation.attacked(attack, holding)
    besieged = federation.rounds(rounds)
    return Found(
        calm.seconds,
        besieged.seconds,
        calm_peak,
        federation.orchestrator_peak_mib,
        calm.correct and besieged.correct,
        federation.ended,
    )


def main(
    half_open: Annotated[int, typer.Option(help="Calls without a message at a time.")] = 1000,
    gateways: Annotated[int, typer.Option(help="That take part in the rounds.")] = 8,
    mib: Annotated[int, typer.Option(help="Size of the model in MiB.")] = 1,
    rounds: Annotated[int, typer.Option(help="Rounds to measure, before and during.")] = 100,
) -> None:
    """Measure and print."""
    holding = ceil(half_open / LIMITS.streams)
    attack = Attack(
        half_open=ceil(half_open / holding),
        calls_per_s=10 * LIMITS.requests_per_s,
        bomb_mib=64,
        silent=half_open // 2,
    )
    with state_folder(Path(), durable=False) as state:
        setting = Setting(mib, gateways, True, state / "federation", min(4, gateways))
        with Besieged(setting) as federation:
            found = measure(federation, rounds, attack, holding)
    asked = {"half_open": half_open, "gateways": gateways, "mib": mib}
    print(json.dumps({"benchmark": "siege", **asked, **found.line(), **described()}), flush=True)


if __name__ == "__main__":
    typer.run(main)
