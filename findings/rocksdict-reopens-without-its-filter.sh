#!/usr/bin/env bash
# rocksdict: a database that is opened again with the options it was made with has no Bloom filter, unless the column
# family is named.
#
# Seen with rocksdict 0.3.29 on Python 3.11. A database is made with a Bloom filter of 10 bits a key, gets 20,000 keys,
# and is asked for 4,000 others:
# - The process that made it: the filter answers for nearly all of them (`rocksdb.bloom.filter.useful` is above 3,900).
# - Closed and opened again by `Rdict(path, options)`, with the same options: the filter is asked for none, and
#   `useful` and `full.positive` are 0. Each key that is not there is looked for in the data. Nothing is raised or said.
# - Opened by `Rdict(path, options, column_families={"default": options})`: as at first.
# The options file beside the data names the filter all the time.
#
# So name the column family "default" with its options whenever a database is opened. Look at the statistics, as the
# answers are right either way.
# Fails if any of this is no longer so.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check rocksdict==0.3.29
PLACE=$place timeout --signal=KILL 55 "$place/venv/bin/python" - <<'PYTHON'
import os
import re
from pathlib import Path

from rocksdict import BlockBasedOptions, Options, Rdict

PATH = os.environ["PLACE"] + "/database"
KEYS, ASKED = 20_000, 4_000


def options():
    """Give options with a filter, and with statistics."""
    made = Options(raw_mode=True)
    made.create_if_missing(True)
    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(10.0, False)
    made.set_block_based_table_factory(blocks)
    made.enable_statistics()
    return made


def ask(database, used):
    """Ask for keys that are not there, between those that are. Give how often the filter said no, and wrongly yes."""
    for number in range(ASKED):
        assert database.get(number.to_bytes(8, "big") + b"?") is None
    text = used.get_statistics()
    counts = [re.search(rf"rocksdb\.bloom\.filter\.{name} COUNT : (\d+)", text) for name in ("useful", "full.positive")]
    database.close()
    return [int(count[1]) for count in counts]


used = options()
database = Rdict(PATH, used)
for number in range(KEYS):
    database[number.to_bytes(8, "big")] = b"value"
database.flush()
first = ask(database, used)
used = options()
again = ask(Rdict(PATH, used), used)
used = options()
named = ask(Rdict(PATH, used, column_families={"default": used}), used)
kept = [file for file in Path(PATH).glob("OPTIONS-*") if "filter_policy=bloomfilter" in file.read_text()]
print(f"filter said no, and wrongly yes: at first {first}, opened again {again}, with the family named {named}")
assert first[0] > 3_900 and sum(first) == ASKED
assert again == [0, 0]
assert named[0] > 3_900 and sum(named) == ASKED
assert kept
print("as described")
PYTHON
