"""The seeds of random tests.

On a person's machine each run draws a new seed, so every run looks somewhere new. Where `CI` is set the seed is fixed:
a verdict on a commit must be due to that commit, and not to luck. The long forms (`make sim`, `make storm`, …) search
with new seeds, and what they find stays as a seed or a test of its own.

    seed = first_seed("STORM_SEED")     the seed that STORM_SEED names, or a new one; it is printed
"""

from __future__ import annotations

import os
import random

IN_CI = bool(os.environ.get("CI"))
CI_SEED = 20_251_125


def in_ci(short: int, long: int) -> int:
    """Give the short form's number where `CI` is set: a verdict must come soon. A person's run takes the long one."""
    return short if IN_CI else long


def first_seed(variable: str, below: int = 2**32) -> int:
    """Give the seed that the environment names in `variable`, or draw one. Print it; pytest shows it on failure."""
    named = os.environ.get(variable, "")
    seed = int(named) if named else CI_SEED if IN_CI else random.SystemRandom().randrange(1, below)
    print(f"seed {seed}: run again with {variable}={seed}")  # noqa: T201  # pytest shows it on failure
    return seed
