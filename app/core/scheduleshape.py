"""Whether spec.schedules is good: every mistake at once, by field. Raises on no JSON value."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSimError

from app.core.fields import INT32_MAX, INVALID, REQUIRED, Errors, invalid, missing_or_wrong, whole_number, wrong_type
from app.core.schedules import starts
from app.core.syntax import LABEL_SYNTAX, is_label_value
from app.model.agentpool import FieldError
from app.model.schedule import Schedule

MOST_SCHEDULES = 64
LONGEST_EXPRESSION = 256
LONGEST_RUN = 7 * 86400
DUPLICATE = "FieldValueDuplicate"
PATH = "spec.schedules"


def parse(value: Any) -> tuple[Schedule, ...] | list[FieldError]:
    """The schedules of a pool (None: it has none), or all that is wrong with them. Unknown fields are ignored."""
    if value is None:
        return ()
    if errors := list(_schedules(value)):
        return errors
    numbers = ("durationSecond", "minIdle", "minReplicas")
    return tuple(
        msgspec.convert(
            {key: int(item) if key in numbers else item for key, item in schedule.items() if item is not None}, Schedule
        )
        for schedule in value
    )


def _schedules(value: Any) -> Errors:
    if not isinstance(value, list):
        yield wrong_type(PATH, value, "a list")
        return
    if len(value) > MOST_SCHEDULES:
        yield FieldError(PATH, INVALID, f"Invalid value: must have at most {MOST_SCHEDULES} items, has {len(value)}")
        return
    names: dict[str, int] = {}
    for i, schedule in enumerate(value):
        path = f"{PATH}[{i}]"
        if not isinstance(schedule, dict):
            yield wrong_type(path, schedule, "an object")
            continue
        yield from _name(f"{path}.name", schedule.get("name"), names, i)
        yield from _schedule(path, schedule)


def _name(path: str, name: Any, names: dict[str, int], index: int) -> Errors:
    if not isinstance(name, str) or not name:
        yield missing_or_wrong(path, name or None, "a string", "what this schedule is called")
    elif not is_label_value(name):
        yield invalid(path, name, f"must be {LABEL_SYNTAX}")
    elif name in names:
        message = f"Duplicate value: {name}: {PATH}[{names[name]}] has that name already"
        yield FieldError(path, DUPLICATE, message)
    else:
        names[name] = index


def _schedule(path: str, schedule: dict[str, Any]) -> Errors:
    yield from _expression(f"{path}.schedule", schedule.get("schedule"))
    yield from _time_zone(f"{path}.timeZone", schedule.get("timeZone"))
    duration = schedule.get("durationSecond")
    if duration is None:
        yield FieldError(f"{path}.durationSecond", REQUIRED, "Required value: for how long it is active")
    else:
        yield from _number(f"{path}.durationSecond", duration, minimum=1, maximum=LONGEST_RUN)
    overrides = {key: schedule[key] for key in ("minIdle", "minReplicas") if schedule.get(key) is not None}
    if not overrides:
        yield FieldError(path, REQUIRED, "Required value: minIdle or minReplicas, what holds while it is active")
    for key, number in overrides.items():
        yield from _number(f"{path}.{key}", number, minimum=0, maximum=INT32_MAX)


def _expression(path: str, text: Any) -> Errors:
    if not isinstance(text, str):
        yield missing_or_wrong(path, text, "a string", 'when it starts, as cron says it, such as "0 8 * * 1-5"')
        return
    if len(text) > LONGEST_EXPRESSION:
        yield invalid(path, text, f"must have at most {LONGEST_EXPRESSION} characters")
        return
    if len(text.split()) != 5:
        yield invalid(path, text, "must be five fields: minute, hour, day of the month, month, day of the week")
        return
    try:
        # From any day on, what comes at all comes within 50 years: the calendar's rarest day, 29 February on a
        # certain weekday, within 40.
        if next(starts(text, "UTC", after=0.0), None) is None:
            yield invalid(path, text, "never comes")
    except CronSimError as error:
        if error.args == ("Bad day-of-month",) and _is_impossible(text):
            yield invalid(path, text, "never comes: no such month has that many days")
        else:
            yield invalid(path, text, f"is no cron expression: {_told(error)}")


def _is_impossible(text: str) -> bool:
    """Whether all fields can be read, and only the months are too short for the day."""
    minute, hour, day, _, weekday = text.split()
    try:
        next(starts(f"{minute} {hour} {day} * {weekday}", "UTC", after=0.0), None)
    except CronSimError:
        return False
    return True


def _told(error: CronSimError) -> str:
    text = str(error)
    return f"the field {text[4:]} cannot be read" if text.startswith("Bad ") else text


def _time_zone(path: str, name: Any) -> Errors:
    if name is None:
        return
    if not isinstance(name, str):
        yield wrong_type(path, name, "a string")
        return
    try:
        # "localtime" is a file beside the time zones: whatever the image's clock shows.
        known = name != "localtime" and bool(ZoneInfo(name))
    except (KeyError, ValueError, OSError):
        known = False
    if not known:
        yield invalid(path, name, 'is no IANA time zone, such as "Europe/Berlin"')


def _number(path: str, value: Any, *, minimum: int, maximum: int) -> Errors:
    if error := whole_number(path, value):
        yield error
    elif not minimum <= value <= maximum:
        yield invalid(path, value, f"must be {minimum} to {maximum}")
