"""Makes a job of the controller and the clients' script, and submits it.

`python submit.py FOLDER ADMIN CONSTANTS ROUNDS`; CONSTANTS are SITE=NUMBER, separated by commas.
"""

from __future__ import annotations

import sys
from pathlib import Path

from controller import TimedFedAvg
from nvflare.client.config import ExchangeFormat
from nvflare.fuel.flare_api.flare_api import new_secure_session
from nvflare.job_config.api import FedJob
from nvflare.job_config.script_runner import FrameworkType, ScriptRunner


def main(folder: Path, admin: Path, constants: str, rounds: int) -> None:
    """Submit; the job goes on by itself."""
    gateways = constants.count(",") + 1
    job = FedJob(name="constant", min_clients=gateways)
    job.to_server(TimedFedAvg(str(folder), gateways, rounds))
    client = ScriptRunner(
        script=str(Path(__file__).with_name("client.py")),
        script_args=constants,
        framework=FrameworkType.NUMPY,
        server_expected_format=ExchangeFormat.NUMPY,
    )
    job.to_clients(client)
    job.export_job(str(folder / "jobs"))
    session = new_secure_session(username=admin.name, startup_kit_location=str(admin))
    try:
        print(session.submit_job(str(folder / "jobs" / "constant")), flush=True)
    finally:
        session.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
