"""The exception tree of the engine.

    EngineError
      ConfigError (also ValueError)          the YAML, an argument or a setting is wrong
      DataError (also ValueError)            a table, column or value cannot be used
      TargetFunctionError (also ValueError)  the target function raised or returned something unusable
      CheckpointError                        a checkpoint directory is missing, incomplete or not trusted
      NotBuiltError (also NotImplementedError)  documented, but not built in this engine

Messages have four parts: what failed, what was observed, what to do next, where to look.
"""

import difflib
from collections.abc import Iterable


class EngineError(Exception):
    """Base of every error the engine raises on purpose."""


class ConfigError(EngineError, ValueError):
    """The configuration, an argument or a setting is wrong."""


class DataError(EngineError, ValueError):
    """A table, a column or its values cannot be used."""


class TargetFunctionError(EngineError, ValueError):
    """The target function raised, or returned something unusable."""


class NoTargetError(TargetFunctionError):
    """The target function returned None wherever it was asked."""


class CheckpointError(EngineError):
    """A checkpoint directory is missing, incomplete or not trusted."""


class NotBuiltError(EngineError, NotImplementedError):
    """The name is documented, but this engine does not build it."""


def problem(failed: str, observed: str = "", do: str = "", look: str = "") -> str:
    """Join the four parts of an error message in their fixed order."""
    failed, observed, do, look = (part.strip() for part in (failed, observed, do, look))
    if observed[:1].islower() and not failed.endswith((".", ":")):
        failed, observed = f"{failed}: {observed}", ""
    if look[:1].islower():  # a command or a page
        look = f"See {look}"
    parts = [part for part in (failed, observed, do, look) if part]
    return " ".join(part if part.endswith((".", ":", "`")) else f"{part}." for part in parts)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint naming the known name closest to *name*, or the known names."""
    known = [str(item) for item in known]
    by_lower = {item.lower(): item for item in known}
    close = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    if close:
        return f"did you mean `{by_lower[close[0]]}`?"
    shown = ", ".join(f"`{item}`" for item in known[:12])
    return f"known names are {shown}" if known else "no names are known"
