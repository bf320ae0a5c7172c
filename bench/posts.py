"""What another configuration costs a POST: two leaders that differ in nothing else take turns.

    ratios = post_ratios({"plain": PLAIN, "watched": WATCHED}, rounds=7, seconds=1.0)
    ratios["single"]                   how much longer an increment takes on the second one, from request to answer

Each round has a load of single increments and one of batches on both leaders, and each time another one begins. The
ratio is the median of the rounds' ratios (`bench.turns`).
"""

from __future__ import annotations

import statistics
from typing import Any

import msgspec

from bench.load import Workload, run_load
from bench.servers import leader

PATH = "/scores/increment"
SERVER_PROCESSOR, LOAD_PROCESSOR = 0, 1
BATCH = 1_000
USERS = 100_000

LOADS: dict[str, dict[str, Any]] = {
    "single": {"connections": 32},
    "batch": {"connections": 16, "path": f"{PATH}/batch", "batch": BATCH},
}


def post_ratios(configurations: dict[str, str], rounds: int, seconds: float) -> dict[str, float]:
    """Post to the two leaders; give the ratio of the second one's times to the first one's, by load."""
    (first_name, first_config), (second_name, second_config) = configurations.items()
    found: dict[str, list[float]] = {name: [] for name in LOADS}
    with (
        leader(SERVER_PROCESSOR, first_config, name=first_name) as first,
        leader(SERVER_PROCESSOR, second_config, name=second_name) as second,
    ):
        for number in range(rounds):
            for name, fields in LOADS.items():
                took = {}
                for server in (second, first) if number % 2 else (first, second):
                    asked = {"port": server.port, "token": server.token, "seconds": seconds, "users": USERS}
                    load = run_load(msgspec.convert({**asked, **fields}, Workload), LOAD_PROCESSOR)
                    assert not load.errors, f"{load.errors} answers were errors"
                    took[server.port] = 1 / load.per_second
                found[name].append(took[second.port] / took[first.port])
    return {name: statistics.median(each) for name, each in found.items()}
