"""Every mistake in spec.schedules is found, by field, whatever the value is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.schedules import look
from app.core.scheduleshape import parse
from app.model.agentpool import FieldError
from app.model.schedule import Schedule

GOOD: dict[str, Any] = {"name": "day", "schedule": "0 8 * * 1-5", "durationSecond": 3600, "minIdle": 5}


def errors(value: Any) -> list[FieldError]:
    found = parse(value)
    assert isinstance(found, list), found
    return found


def test_good_schedules_become_values() -> None:
    assert parse(None) == parse([]) == ()
    spec = {**GOOD, "timeZone": "Europe/Berlin", "minReplicas": 2.0, "later": 1}
    assert parse([spec]) == (Schedule("day", "0 8 * * 1-5", 3600, "Europe/Berlin", min_idle=5, min_replicas=2),)
    assert parse([{**GOOD, "timeZone": None}]) == (Schedule("day", "0 8 * * 1-5", 3600, "UTC", min_idle=5),)


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"schedule": None}, "schedule", "Required value: when it starts"),
        ({"schedule": 5}, "schedule", "must be a string, not a number"),
        ({"schedule": "0 8 * *"}, "schedule", "must be five fields"),
        ({"schedule": "0 0 8 * * 1"}, "schedule", "must be five fields"),
        ({"schedule": "@daily"}, "schedule", "must be five fields"),
        ({"schedule": "0 24 * * *"}, "schedule", "the field hour cannot be read"),
        ({"schedule": "0 8 0 * *"}, "schedule", "the field day-of-month cannot be read"),
        ({"schedule": f"{'9' * 5000} * * * *"}, "schedule", "at most 256 characters"),
        ({"schedule": "0 0 30 2 *"}, "schedule", "never comes: no such month has that many days"),
        ({"schedule": "0 0 */31 * MON#5"}, "schedule", "never comes"),
        ({"timeZone": "Europe/Berlim"}, "timeZone", "is no IANA time zone"),
        ({"timeZone": "../../etc/passwd"}, "timeZone", "is no IANA time zone"),
        ({"timeZone": "localtime"}, "timeZone", "is no IANA time zone"),
        ({"timeZone": ""}, "timeZone", "is no IANA time zone"),
        ({"timeZone": "Europe"}, "timeZone", "is no IANA time zone"),
        ({"timeZone": "x" * 5000}, "timeZone", "is no IANA time zone"),
        ({"timeZone": "\ud800\0"}, "timeZone", "is no IANA time zone"),
        ({"timeZone": ["UTC"]}, "timeZone", "must be a string, not a list"),
        ({"durationSecond": None}, "durationSecond", "Required value: for how long"),
        ({"durationSecond": 0}, "durationSecond", "must be 1 to 604800"),
        ({"durationSecond": 604801}, "durationSecond", "must be 1 to 604800"),
        ({"durationSecond": 1.5}, "durationSecond", "must be an integer"),
        ({"durationSecond": True}, "durationSecond", "must be an integer, not a boolean"),
        ({"minIdle": -1}, "minIdle", "must be 0 to 2147483647"),
        ({"minReplicas": 2**31}, "minReplicas", "must be 0 to 2147483647"),
        ({"name": ""}, "name", "Required value: what this schedule is called"),
        ({"name": "a b"}, "name", "letters, digits"),
    ],
)
def test_a_mistake_is_told_by_its_field(change: dict[str, Any], field: str, message: str) -> None:
    (error,) = errors([GOOD | change])
    assert error.field == f"spec.schedules[0].{field}"
    assert message in error.message


def test_all_mistakes_at_once() -> None:
    found = errors([GOOD, "x", {**GOOD, "minIdle": None, "durationSecond": -1}])
    assert [(error.field, error.reason) for error in found] == [
        ("spec.schedules[1]", "FieldValueTypeInvalid"),
        ("spec.schedules[2].name", "FieldValueDuplicate"),
        ("spec.schedules[2].durationSecond", "FieldValueInvalid"),
        ("spec.schedules[2]", "FieldValueRequired"),
    ]
    assert errors({})[0].message == "must be a list, not an object"
    assert "at most 64 items, has 65" in errors([{**GOOD, "name": f"n{i}"} for i in range(65)])[0].message


values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
words = st.text(alphabet="0123456789*/,-#LWMONSU ", max_size=30)
fields = st.sampled_from(["name", "schedule", "timeZone", "durationSecond", "minIdle", "minReplicas"])
anything = st.recursive(values, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@settings(max_examples=300, deadline=None)
@given(schedule=st.dictionaries(fields, anything | words), days=st.tuples(words, words))
def test_no_value_raises_and_what_passes_can_be_used(schedule: dict[str, Any], days: tuple[str, str]) -> None:
    expression = schedule.get("schedule", f"0 8 {days[0]} * {days[1]}")
    for value in (schedule, [schedule], [{**GOOD, **schedule, "schedule": expression}]):
        found = parse(value)
        if isinstance(found, tuple):
            look(found, now=1.8e9)
        else:
            assert all(str(error) for error in found)
