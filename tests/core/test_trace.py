"""The format of traces: what is written can be read, what cannot be read is said, and what lives is told again."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.trace import (
    TYPES,
    VERSION,
    AgentAsked,
    AgentCreated,
    AgentJoined,
    AgentLost,
    AgentRemoved,
    Header,
    LimitsSet,
    Living,
    Record,
    SessionCancelled,
    SessionEnded,
    SessionRequested,
    SessionReturned,
    SessionStarted,
    decode,
    encode,
)
from app.model.agentpool import Autoscaler
from app.model.meta import NamespacedName

POOL = NamespacedName("n", "p")
LIMITS = Autoscaler(max_replicas=5, min_idle=1, max_idle=2)

times = st.floats(min_value=0, max_value=4e9)
names = st.text(max_size=8)
numbers = st.integers(min_value=0, max_value=2**31 - 1)
records: st.SearchStrategy[Record] = st.one_of(
    st.builds(Header, at=times, pool=st.builds(NamespacedName, names, names), version=numbers),
    st.builds(LimitsSet, at=times, limits=st.builds(Autoscaler, *[numbers] * 8)),
    st.builds(SessionRequested, at=times, session=names, priority=st.integers(-(2**31), 2**31)),
    st.builds(SessionStarted, at=times, session=names, agent=names),
    *(st.builds(kind, at=times, session=names) for kind in (SessionReturned, SessionEnded, SessionCancelled)),
    *(st.builds(kind, at=times, agent=names) for kind in (AgentAsked, AgentCreated, AgentLost, AgentRemoved)),
    st.builds(AgentJoined, at=times, agent=names, slots=numbers),
)


@given(st.lists(records))
def test_what_is_encoded_can_be_decoded(written: list[Record]) -> None:
    lines = b"".join(encode(record) for record in written).splitlines(keepends=True)
    found = decode(lines)
    assert (found.records, found.unknown, found.bad) == (written, {}, [])


def test_a_line_is_plain_json() -> None:
    line = encode(SessionStarted(1.5, "s", agent="a"))
    assert line == b'{"type":"sessionStarted","at":1.5,"session":"s","agent":"a"}\n'
    header = msgspec.json.decode(encode(Header(1.0, POOL, VERSION)))
    assert header == {"type": "header", "at": 1.0, "pool": ["n", "p"], "version": 1}


def test_every_type_is_known() -> None:
    assert len(TYPES) == len(get_args(Record)) == 12


def test_records_of_a_newer_version_are_counted_and_left_out() -> None:
    lines = [
        encode(SessionEnded(1.0, "s")),
        b'{"type": "agentMoved", "at": 2.0, "to": "elsewhere"}\n',
        b'{"type": "agentMoved"}\n',
        b'{"type": "sessionEnded", "at": 3.0, "session": "t", "why": "a field of a newer version"}\n',
    ]
    found = decode(lines)
    assert found.records == [SessionEnded(1.0, "s"), SessionEnded(3.0, "t")]
    assert found.unknown == {"agentMoved": 2}
    assert found.bad == []


@pytest.mark.parametrize(
    "line",
    [
        b'{"type": "sessionEnded", "at": 1.0, "sess',
        b'{"type": "sessionEnded", "at": 1.0}',
        b'{"type": "sessionEnded", "at": "early", "session": "s"}',
        b'{"type": "sessionEnded", "at": 1.0, "session": "\xff"}',
        b'{"at": 1.0}',
        b'{"type": 3}',
        b"[]",
        b"\x00\xff",
    ],
)
def test_a_broken_line_is_told_by_its_number(line: bytes) -> None:
    found = decode([encode(SessionEnded(1.0, "s")), b"\n", line, encode(SessionEnded(2.0, "t"))])
    assert [record.at for record in found.records] == [1.0, 2.0]
    assert [bad.number for bad in found.bad] == [3]
    assert found.bad[0].message
    assert found.unknown == {}


@given(st.lists(st.binary(max_size=40)))
def test_no_line_makes_decoding_fail(lines: list[bytes]) -> None:
    decode(lines)


class TestLiving:
    def of(self, *told: Record) -> list[Record]:
        living = Living()
        for record in told:
            living.apply(record)
        return list(living.records())

    def test_a_session_from_its_request_to_its_end(self) -> None:
        requested, started = SessionRequested(1.0, "s", priority=2), SessionStarted(2.0, "s", agent="a")
        assert self.of(requested, started) == [requested, started]
        assert self.of(requested, started, SessionReturned(3.0, "s")) == [requested]
        assert self.of(requested, started, SessionEnded(3.0, "s")) == []
        assert self.of(requested, SessionCancelled(3.0, "s")) == []

    def test_an_agent_from_its_asking_to_its_removal(self) -> None:
        asked, joined = AgentAsked(1.0, "a"), AgentJoined(2.0, "a", slots=1)
        lost, back = AgentLost(3.0, "a"), AgentJoined(4.0, "a", slots=1)
        assert self.of(asked, joined) == [asked, joined]
        assert self.of(asked, joined, lost) == [asked, joined, lost]
        assert self.of(asked, joined, lost, back) == [asked, joined]
        assert self.of(asked, joined, lost, back, AgentRemoved(5.0, "a")) == []

    def test_limits_that_are_as_they_were_say_nothing_new(self) -> None:
        living = Living()
        assert living.apply(LimitsSet(1.0, LIMITS))
        assert not living.apply(LimitsSet(2.0, LIMITS))
        changed = LimitsSet(3.0, msgspec.structs.replace(LIMITS, min_idle=2))
        assert living.apply(changed)
        assert list(living.records()) == [changed]

    def test_it_stays_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.core.trace.LIVING_LIMIT", 2)
        told = [SessionRequested(float(number), f"s{number}") for number in range(4)]
        assert self.of(*told) == told[2:]
