"""Checks of single values, alike for YAML and for arguments: numbers, names, lists.

YAML reads `1e-4` as text and an environment variable is text always, so that text that is a number
is taken for the number.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from monad.errors import ConfigError, nearest, problem

Made = TypeVar("Made")
_ZERO_ALLOWED = ("num_workers",)


def number(value: Any, path: str, *, whole: bool = False, least: float | None = None) -> Any:
    """Return *value* as a number of at least *least*, or raise with the *path* to it."""
    found: float | int
    try:
        if isinstance(value, bool):
            raise TypeError
        found = float(value)
        if whole:
            found = value if isinstance(value, int) else int(found)
        # NaN, and a fraction where a whole number is wanted.
        if not math.isfinite(found) or found != float(value):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        kind = "a whole number" if whole else "a number"
        raise ConfigError(problem(f"{path} must be {kind}", f"got {value!r}")) from None
    if least is not None and found < least:
        raise ConfigError(problem(f"{path} must be at least {least:g}", f"got {value!r}"))
    return found


def positive(value: Any, path: str) -> float:
    """Return *value* as a number above zero."""
    found = number(value, path)
    if not found > 0:
        raise ConfigError(problem(f"{path} must be positive", f"got {value!r}"))
    return float(found)


def names(value: Any, path: str) -> list[str]:
    """Return a list of names; one name alone is no list, as its letters would be."""
    if not isinstance(value, (list, tuple)) or any(isinstance(v, (list, Mapping)) for v in value):
        raise ConfigError(
            problem(f"{path} must be a list of names", f"got {value!r}", "Write it like [a, b]")
        )
    return [str(item) for item in value]


def one_of(value: Any, known: Iterable[Any], path: str) -> str:
    """Return the known spelling of *value*, whose letter case does not matter."""
    by_lower = {str(item).lower(): str(item) for item in known}
    found = by_lower.get(str(value).lower())
    if found is None:
        raise ConfigError(
            problem(f"{path} is `{value}`", do=nearest(str(value), by_lower.values()))
        )
    return found


def typed(kind: type, values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return *values* with those of a dataclass's number, text and list fields checked."""
    made = dict(values)
    for item in dataclasses.fields(kind):
        value = made.get(item.name)
        if value is None:
            if item.name in made and item.default is not dataclasses.MISSING:
                made[item.name] = item.default  # a key without a value is as if left out
            continue
        wanted, where = _kinds(item.type), f"{path}.{item.name}"
        if bool in wanted:
            if not isinstance(value, bool):
                raise ConfigError(problem(f"{where} must be true or false", f"got {value!r}"))
        elif int in wanted:
            least = 0 if item.name in _ZERO_ALLOWED else 1
            made[item.name] = number(value, where, whole=True, least=least)
        elif float in wanted:
            made[item.name] = number(value, where)
        elif list[str] in wanted:
            made[item.name] = names(value, where)
        elif str in wanted:
            if isinstance(value, (list, Mapping)):
                raise ConfigError(problem(f"{where} must be text", f"got {value!r}"))
            made[item.name] = str(value)
    return made


def _kinds(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)


def allows_none(annotation: Any) -> bool:
    """Tell whether a field may have no value."""
    return types.NoneType in _kinds(annotation)


def instance(kind: type[Made], value: Any, path: str) -> Made:
    """Return *value*, made from a mapping of the dataclass's fields where it is one."""
    if isinstance(value, kind):
        return value
    known = [item.name for item in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if not isinstance(value, Mapping):
        raise ConfigError(
            problem(
                f"{path} must be {kind.__name__}({', '.join(known)})",
                f"got {value!r}",
                "In YAML, a mapping of these names",
            )
        )
    for key in value:
        if key not in known:
            raise ConfigError(
                problem(f"{path}.{key} is not a field of {kind.__name__}", nearest(str(key), known))
            )
    try:
        return kind(**value)
    except TypeError as error:
        raise ConfigError(problem(f"{path} is not complete", str(error))) from error
