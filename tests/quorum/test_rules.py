"""When a standby bids, which nodes count, and what may be purged: the pure rules of a quorum."""

from __future__ import annotations

import math

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from server.quorum.peers import PEER_FORGOTTEN_SECONDS, PEER_SECONDS, PEERS_MAX, Peers
from server.quorum.retention import purge_before
from server.quorum.silence import Silence
from server.quorum.stream import Bounds
from server.quorum.words import Word, decode, encode

WORD = Word(
    node_id="b",
    name="node b",
    url="http://b:1",
    public_url=None,
    role="following",
    leads=False,
    epoch=3,
    seq=40,
    place=7,
)


def at_most(_low: float, high: float) -> float:
    return high


def test_a_standby_bids_after_a_silence_on_a_stream_that_answers() -> None:
    """Not while nothing is read; each confirmed word begins the silence anew, an old one does not."""
    silence = Silence(4.0, at_most, 100.0)
    assert silence.due_s == math.inf
    silence.readable(102.0)
    assert silence.due_s == 105.0
    silence.heard(110.0)
    assert silence.due_s == 115.0
    silence.heard(109.0)
    assert silence.due_s == 115.0


def test_after_an_outage_the_leader_has_half_a_silence() -> None:
    """It is counted from the moment at which the stream answers again."""
    silence = Silence(4.0, at_most, 100.0)
    silence.readable(100.0)
    silence.unreadable()
    silence.readable(200.0)
    silence.readable(203.0)
    assert silence.due_s == 203.0


def test_a_resignation_ends_the_silence_but_not_for_the_one_who_abstains() -> None:
    """A new leader ends that again."""
    silence = Silence(4.0, at_most, 100.0)
    silence.readable(100.0)
    silence.heard(101.0)
    silence.resigned(101.5)
    assert silence.due_s == 101.6
    silence.heard(101.8)
    assert silence.due_s == 106.8
    silence.abstain(120.0)
    assert silence.due_s == 120.0
    silence.begin(130.0)
    assert silence.due_s == 135.0


def test_who_abstains_bids_again_once_another_leader_was_heard() -> None:
    """Of two nodes the second one resigns soon after the first: the first one takes over at once."""
    silence = Silence(3.0, lambda low, high: low, 100.0)
    silence.readable(100.0)
    silence.abstain(120.0)
    assert silence.due_s == 120.0
    silence.heard(101.0)
    assert silence.due_s == 104.0
    silence.resigned(102.0)
    assert silence.due_s == 102.0


def test_a_resignation_counts_only_on_a_stream_that_answers() -> None:
    """Nobody could win there."""
    silence = Silence(4.0, at_most, 100.0)
    silence.resigned(100.0)
    assert silence.due_s == math.inf


def test_peers_count_as_long_as_they_are_heard() -> None:
    """The one with most of the log comes first; ourselves are none; who starts again takes its own place."""
    peers = Peers("a")
    peers.heard(msgspec.structs.replace(WORD, node_id="a"), 0.0)
    assert peers.archived(9, 0.0) == 0
    peers.heard(WORD, 0.0)
    further = msgspec.structs.replace(WORD, node_id="c", name="node c", url="http://c:1", seq=50, place=9)
    peers.heard(further, 5.0)
    assert [word.name for word in peers.alive(5.0)] == ["node c", "node b"]
    assert (peers.archived(8, 5.0), peers.archived(12, 5.0)) == (8, 9)
    assert [word.name for word in peers.alive(PEER_SECONDS + 1)] == ["node c"]
    peers.heard(msgspec.structs.replace(further, node_id="d"), 6.0)
    assert [peer.word.node_id for peer in peers.all()] == ["b", "d"]
    peers.heard(msgspec.structs.replace(WORD, node_id="e", url="http://e:1"), PEER_FORGOTTEN_SECONDS + 5.5)
    assert [peer.word.node_id for peer in peers.all()] == ["e", "d"]


def test_a_flood_of_names_is_bounded() -> None:
    """Beyond the bound new ones are not kept."""
    peers = Peers("a")
    for number in range(PEERS_MAX + 9):
        peers.heard(msgspec.structs.replace(WORD, node_id=f"n{number}", url=f"http://n{number}:1"), 0.0)
    assert len(peers.all()) == PEERS_MAX


def test_a_word_comes_back_as_it_was_and_nonsense_is_none() -> None:
    """A newer version may say more."""
    assert decode(encode(WORD)) == WORD
    assert decode(encode(WORD)[:-1] + b',"more":1}') == WORD
    for nonsense in (b"", b"\xff", b"[]", b'{"node_id":"b"}', encode(WORD).replace(b'"seq":40', b'"seq":-1')):
        assert decode(nonsense) is None


@given(
    first=st.integers(1, 1_000),
    count=st.integers(0, 5_000),
    frame_bytes=st.integers(1, 10_000),
    archived=st.integers(0, 6_000),
    keep=st.integers(1, 10**7),
    forget=st.integers(0, 6_000),
)
def test_a_purge_never_takes_what_two_nodes_lack_or_the_newest_place(
    first: int, count: int, frame_bytes: int, archived: int, keep: int, forget: int
) -> None:
    """And what is kept is about what was asked for, unless users must be forgotten."""
    bounds = Bounds(first, first + count - 1, count * frame_bytes)
    new = purge_before(bounds, archived=archived, keep_bytes=keep, forget=forget)
    if new is None:
        assert count <= 1 or archived < first or (forget < first and bounds.bytes <= keep * 1.2 + 8 * frame_bytes)
        return
    assert first < new <= min(archived + 1, bounds.last)
    if forget < new - 1:
        assert (bounds.last - new + 1) * frame_bytes >= keep - frame_bytes
