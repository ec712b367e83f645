"""Structured logs: for people on a terminal, one JSON object a line anywhere else. Levels change while we run."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping

import structlog

from app.settings import Log

QUIET = ("uvicorn.access", "aiohttp.access")
"""Loggers with a line for each request: shown only where they are named."""

_SECRET = re.compile(
    r"(?i:(bearer\s+))[\w.~+/=-]{16,}"
    r"|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)

_named: set[str] = set()
"""Loggers whose level is ours."""


def configure(settings: Log) -> None:
    """Route structlog and the standard library's loggers through one pipeline to standard error."""
    pretty = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Without the variables of each frame, among which are tokens and keys.
    tracebacks = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    tail: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [structlog.processors.ExceptionRenderer(tracebacks), structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Redacting(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    logging.basicConfig(handlers=[handler], force=True)
    set_levels(settings)
    logging.getLogger("uvicorn.error").addFilter(_not_for_each_request)


def set_levels(settings: Log) -> None:
    """Show from now on what these settings say: ``level``, and for loggers and those below them ``levels``."""
    levels: Mapping[str, str] = {**dict.fromkeys(QUIET, "warning"), **settings.levels}
    logging.getLogger().setLevel(settings.level.upper())
    for name in _named - levels.keys():
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level.upper())
    _named.clear()
    _named.update(levels)


class _Redacting(structlog.stdlib.ProcessorFormatter):
    """What gets into a line all the same, by an error's text say, does not leave it."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def redacted(line: str) -> str:
    """The line without bearer tokens, JSON web tokens and private keys."""
    return _SECRET.sub(lambda found: f"{found[1] or ''}[redacted]", line)


def _not_for_each_request(record: logging.LogRecord) -> bool:
    """uvicorn warns of each request that is none, as often as somebody likes; refusals are told elsewhere."""
    return not str(record.msg).startswith(("Invalid HTTP request", "Unsupported upgrade", "No supported WebSocket"))
