"""The counts of a pool's workers are what counting them one by one gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core.tally import tally
from app.core.workers import JOINED, LIVE, State, Worker

workers = st.lists(
    st.builds(
        Worker,
        name=st.text(max_size=3),
        uid=st.just(""),
        state=st.sampled_from(State),
        slots=st.integers(0, 4),
        sessions=st.integers(0, 5),
        template_hash=st.sampled_from(("v1", "v2")),
        stuck=st.booleans(),
    ),
    max_size=20,
)


@given(workers)
def test_the_counts_are_those_of_the_workers(all_of_them: list[Worker]) -> None:
    counts = tally(all_of_them, template_hash="v2")
    for state in State:
        of_state = [worker for worker in all_of_them if worker.state is state]
        assert counts.states[state] == len(of_state)
        old = [worker for worker in of_state if worker.template_hash == "v1"]
        assert counts.outdated[state] == (len(old) if state in LIVE else 0)
    assert counts.live == sum(worker.state in LIVE for worker in all_of_them)
    joined = [worker for worker in all_of_them if worker.state in JOINED]
    assert counts.joined == len(joined)
    assert counts.joined_slots == sum(worker.slots for worker in joined)
    assert counts.joined_free == sum(max(0, worker.slots - worker.sessions) for worker in joined)
    assert counts.free == sum(worker.free for worker in all_of_them)
    assert counts.stuck == sum(worker.stuck for worker in all_of_them)
