"""Moving many keys of a large board together: the positions are those of one move after the other. Pure.

    before, after = move_all(order, olds, news, slots, chains_of(slots))         codes of keys (`engine.keys`)

Theory. One move asks where its old and its new key are in the order as the moves before it left it. But numpy answers
a thousand such questions at once, if they are about one order. So all keys are looked for in the order as it is before
the first move. Then each position is corrected (`corrections`): by the new keys of earlier moves that are lower, which
have come, and the old ones that are lower, which have gone. A user may move several times. The keys in between come
and go again, and the order is changed once for each user.

Cost: with a million keys one by one, most of the time of a move is waiting for memory, and most of the rest Python.
`bench/engine.py` measures both: frames of 1, and of 1,000.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine.keys import Codes, CompactKeys
from engine.order import Order
from engine.probing import places_of

NOT_THERE = 2**64 - 1
"""The old code of a user who was not in the order."""

PART = 1024
"""Moves that are compared with each other: bits, PART² of them. A part also costs a look at all moves before it."""

Words = NDArray[np.int64]

_BITS = np.left_shift(np.uint64(1), np.arange(64, dtype=np.uint64))
_EARLIER = np.packbits(np.tri(PART + 1, PART, k=-1, dtype=np.bool_), axis=1, bitorder="little").view("<u8")
"""Row i: a bit for each of the first i moves."""


class Chains(NamedTuple):
    """The moves of each slot: the place of the slot's move before, -1 for the first; those of first and last moves."""

    befores: Words
    firsts: Words
    lasts: Words


def chains_of(slots: Words) -> Chains:
    """Find the moves of each slot."""
    by_slot = np.argsort(slots, kind="stable")
    differs = np.diff(slots[by_slot]) != 0
    befores = np.full(len(slots), -1)
    befores[by_slot[1:][~differs]] = by_slot[:-1][~differs]
    return Chains(befores, by_slot[np.append(True, differs)], by_slot[np.append(differs, True)])


def move_all(order: Order, olds: Codes, news: Codes, slots: Words, chains: Chains) -> tuple[Words, Words]:
    """Take out each old code and put in the new one; give the positions before and after each move.

    Each old code is in the order, or is the new one of the slot's move before; or it is NOT_THERE, and has no position.
    New ones are not in the order, but one may be the old one of its move.
    """
    count, tops = len(olds), order.tops()
    keys = np.concatenate((olds, news))
    lists = np.minimum(np.searchsorted(tops, keys), len(tops) - 1)
    places = places_of(keys, [_compact(order, pos).codes for pos in lists.tolist()])
    positions = order.starts()[lists] + places
    earlier_olds, earlier_news = corrections(olds, news)
    gone = chains.firsts[olds[chains.firsts] != NOT_THERE]
    gone = gone[np.argsort(olds[gone])]
    come = chains.lasts[np.argsort(news[chains.lasts])]
    _change(
        order, (lists[gone], places[gone], olds[gone]), (lists[count + come], places[count + come], news[come]),
        slots[come],
    )  # fmt: skip
    return positions[:count] + earlier_olds, positions[count:] + earlier_news


def corrections(olds: Codes, news: Codes) -> tuple[Words, Words]:
    """Give by how much the moves before change the position of each old code, and with its own of each new one."""
    at_olds, at_news = np.empty(len(olds), np.int64), np.empty(len(olds), np.int64)
    for start in range(0, len(olds), PART):
        part = slice(start, start + PART)
        old, new = olds[part], news[part]
        at_olds[part], at_news[part] = _within(old, new)
        if start:
            gone, come = np.sort(olds[:start]), np.sort(news[:start])
            at_olds[part] += np.searchsorted(come, old) - np.searchsorted(gone, old)
            at_news[part] += np.searchsorted(come, new) - np.searchsorted(gone, new)
    return at_olds, at_news


def _within(olds: Codes, news: Codes) -> tuple[Words, Words]:
    """Do the same for the moves of one part: each changes the positions between its two codes by one."""
    count, words = len(olds), -(-len(olds) // 64)
    ranks = np.unique(np.concatenate((olds, news)), return_inverse=True)[1]  # sorted as the codes
    old, new = ranks[:count], ranks[count:]
    at_olds, at_news = np.zeros(count, np.int64), np.zeros(count, np.int64)
    for more, moves in ((1, np.flatnonzero(new < old)), (-1, np.flatnonzero(new > old))):
        if len(moves):
            # Row r: the moves that change the position of rank r, one bit for each. A move changes those between its
            # codes: so its bit is set from the row behind the one on, and taken back behind the other.
            between = np.zeros((2 * count + 1, words), np.uint64)
            between[new[moves] + 1, moves // 64] = _BITS[moves % 64]
            between[old[moves] + 1, moves // 64] ^= _BITS[moves % 64]
            np.bitwise_xor.accumulate(between, axis=0, out=between)
            at_olds += more * _count(between[old] & _EARLIER[:count, :words])
            at_news += more * _count(between[new] & _EARLIER[1 : count + 1, :words])
    return at_olds, at_news


def _count(bits: NDArray[np.uint64]) -> Words:
    counted: Words = np.bitwise_count(bits).sum(axis=1, dtype=np.int64)
    return counted


def _compact(order: Order, pos: int) -> CompactKeys:
    keys = order._lists[pos]
    assert isinstance(keys, CompactKeys)
    return keys


def _change(order: Order, gone: tuple[Words, Words, Codes], come: tuple[Words, Words, Codes], slots: Words) -> None:
    """Take codes out and put others in. Both are sorted, with their lists, and the places that they would have now."""
    tops = order.tops()
    (sources, source_places, old), (targets, target_places, new) = gone, come
    # In its list a key that comes has fewer keys before it by those that have gone, and more by those that have come.
    target_places = (
        target_places
        - (np.searchsorted(old, new) - np.searchsorted(sources, targets))
        + (np.arange(len(new)) - np.searchsorted(targets, targets))
    )
    for pos, place, code in zip(sources[::-1].tolist(), source_places[::-1].tolist(), old[::-1].tolist(), strict=True):
        keys = _compact(order, pos)
        assert keys.codes[place] == code
        del keys.codes[place]
        del keys.slots[place]
    for pos, place, code, slot in zip(
        targets.tolist(), target_places.tolist(), new.tolist(), slots.tolist(), strict=True
    ):
        keys = _compact(order, pos)
        keys.codes.insert(place, code)
        keys.slots.insert(place, slot)
    more = np.bincount(targets, minlength=len(tops)) - np.bincount(sources, minlength=len(tops))
    topped = {*sources[old == tops[sources]].tolist(), *targets[new > tops[targets]].tolist()}
    order.changed(more, topped)
