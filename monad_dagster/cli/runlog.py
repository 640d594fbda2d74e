"""Reduce Dagster's run log to the lines a person wants to follow."""

import re

_EVENT = re.compile(
    r"^(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) [+-]\d{4} - dagster - "
    r"(?P<level>[A-Z]+) - (?P<rest>.*)$"
)
# Events of the run log worth a line; the others are only in the log file.
_SHOWN_EVENTS = (
    "STEP_START",
    "STEP_SUCCESS",
    "STEP_FAILURE",
    "ASSET_MATERIALIZATION",
    "ASSET_CHECK_EVALUATION",
    "RUN_SUCCESS",
    "RUN_FAILURE",
    "RUN_CANCELED",
)


class RunLogFilter:
    """Decide line by line what to show; everything is shown when verbose."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._in_stack_trace = False

    def render(self, line: str) -> str | None:
        """Return the text to print for *line*, or None to leave it to the log file."""
        text = line.rstrip("\n")
        if self._verbose:
            return text
        match = _EVENT.match(text)
        if not match:
            return self._continuation(text)
        self._in_stack_trace = False
        clock = match["time"][11:]
        fields = match["rest"].split(" - ")
        message = fields[-1].strip()
        if match["level"] in {"INFO", "WARNING", "ERROR", "CRITICAL"}:
            return f"{clock} {'' if match['level'] == 'INFO' else match['level'] + ' '}{message}"
        if any(name in fields for name in _SHOWN_EVENTS):
            return f"{clock} {message}"
        return None

    def _continuation(self, text: str) -> str | None:
        """Show container lines; leave Dagster's own stack traces to the log file."""
        if text.strip() == "Stack Trace:":
            self._in_stack_trace = True
        return text if text.strip() and not self._in_stack_trace else None
