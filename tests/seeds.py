"""The seeds of tests that draw what they do.

A person who runs the tests gets a seed of their own each time, so that every run looks somewhere new. Where `CI` is set
it is always the same one: what is said of a commit there must be due to that commit, and not to luck. What luck finds
is found by the long forms (`make sim`, `make storm`, ...), and stays as a seed or a test of its own.
"""

from __future__ import annotations

import os
import random

IN_CI = bool(os.environ.get("CI"))
CI_SEED = 20_251_125


def first_seed(variable: str, below: int = 2**32) -> int:
    """Give the seed that the environment names in `variable`, or draw one; and tell which, for pytest to show."""
    named = os.environ.get(variable, "")
    seed = int(named) if named else CI_SEED if IN_CI else random.SystemRandom().randrange(1, below)
    print(f"seed {seed}: run again with {variable}={seed}")  # noqa: T201  # pytest shows it on failure
    return seed
