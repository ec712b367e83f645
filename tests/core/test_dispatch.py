"""Order of waiting sessions, choice of agents, and a ranking that stays small."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.dispatch import SLACK, Rank, Ranking, agent_rank, match, session_rank


def order(ranks: dict[str, Rank | None]) -> list[str]:
    ranking: Ranking[str] = Ranking()
    for key, rank in ranks.items():
        if rank is not None:
            ranking.set(key, rank)
    return drained(ranking)


def drained(ranking: Ranking[str]) -> list[str]:
    keys = []
    while first := ranking.first():
        keys.append(first[0])
        ranking.discard(first[0])
    return keys


def test_the_highest_priority_is_served_first_then_the_first_to_come() -> None:
    assert order(
        {
            "late": session_rank(priority=0, arrival=3),
            "urgent": session_rank(priority=9, arrival=4),
            "early": session_rank(priority=0, arrival=1),
            "patient": session_rank(priority=-1, arrival=0),
        }
    ) == ["urgent", "early", "late", "patient"]


def test_the_fullest_agent_is_filled_first_then_the_one_idle_since_the_latest() -> None:
    assert order(
        {
            "idle long": agent_rank(slots=4, sessions=0, since=10.0),
            "idle briefly": agent_rank(slots=1, sessions=0, since=90.0),
            "one free": agent_rank(slots=4, sessions=3, since=5.0),
            "two free": agent_rank(slots=4, sessions=2, since=99.0),
            "full": agent_rank(slots=4, sessions=4, since=99.0),
            "overfull": agent_rank(slots=1, sessions=2, since=99.0),
        }
    ) == ["one free", "two free", "idle briefly", "idle long"]


def test_a_match_needs_both() -> None:
    sessions: Ranking[str] = Ranking()
    agents: Ranking[str] = Ranking()
    assert match(sessions, agents) is None
    sessions.set("session", (0,))
    assert match(sessions, agents) is None
    agents.set("agent", (0,))
    assert match(sessions, agents) == ("session", "agent")


def test_a_key_moves_when_its_rank_changes() -> None:
    assert order({"a": (1,), "b": (2,)}) == ["a", "b"]
    ranking: Ranking[str] = Ranking()
    ranking.set("a", (1,))
    ranking.set("b", (2,))
    ranking.set("a", (3,))
    assert len(ranking) == 2
    assert drained(ranking) == ["b", "a"]


def test_of_equal_ranks_the_first_to_enter_comes_first() -> None:
    assert order({"z": (1,), "a": (1,), "m": (1,)}) == ["z", "a", "m"]


@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(-3, 3)))))
def test_it_agrees_with_a_sorted_dictionary(steps: list[tuple[int, int | None]]) -> None:
    ranking: Ranking[int] = Ranking()
    plain: dict[int, tuple[int, int]] = {}
    for serial, (key, rank) in enumerate(steps):
        if rank is None:
            ranking.discard(key)
            plain.pop(key, None)
        else:
            ranking.set(key, (rank,))
            plain[key] = (rank, serial)
        first = ranking.first()
        assert (first[0] if first else None) == min(plain, key=lambda k: plain[k], default=None)
        assert len(ranking) == len(plain)


def test_keys_that_move_often_do_not_pile_up() -> None:
    ranking: Ranking[str] = Ranking()
    for rank in range(10_000):
        ranking.set("agent", (rank,))
    assert len(ranking._heap) <= 2 + SLACK
