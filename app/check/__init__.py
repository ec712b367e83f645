"""``velda-apiserver check``: see app/check/command.py."""

EXIT_CODES = "Exit codes: 0 no errors (warnings are none); 1 errors; 2 wrong usage, or a file cannot be read."
