"""What a command of the client ends with: one line for people, an exit code for scripts."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """USAGE is also what typer ends with; INTERRUPTED is a shell's 128 + SIGINT."""

    FAILED = 1
    USAGE = 2
    DENIED = 3
    UNAVAILABLE = 4
    INTERRUPTED = 130


EXIT_CODES = (
    "Exit codes: 0 done; 1 refused or failed; 2 wrong usage; 3 not authenticated, or not allowed; "
    "4 unreachable, or not in time; 130 interrupted."
)


class ClientError(Exception):
    """The text names the object and what to do; ``passing`` is what another try may mend."""

    def __init__(self, code: Exit, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.passing = passing
