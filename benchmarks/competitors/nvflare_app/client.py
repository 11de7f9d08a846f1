"""A client that does not train: it returns what it got plus a constant of its own."""

from __future__ import annotations

import sys

import numpy as np
import nvflare.client as flare


def main() -> None:
    """Answer until the job has ended; the argument gives each client's constant."""
    constants = dict(pair.split("=") for pair in sys.argv[1].split(","))
    flare.init()
    constant = np.float32(constants[flare.get_site_name()])
    while flare.is_running():
        received = flare.receive()
        if received is None:
            return
        params = {name: array + constant for name, array in received.params.items()}
        flare.send(flare.FLModel(params=params, params_type=flare.ParamsType.FULL))


if __name__ == "__main__":
    main()
