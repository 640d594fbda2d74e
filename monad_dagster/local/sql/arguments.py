"""Values that statements and function calls carry: bound variables and arguments."""

from dataclasses import dataclass, field
from typing import Any

from monad_dagster.local import errors


@dataclass(frozen=True)
class Bind:
    """One bound value as the client sent it."""

    type: str
    value: Any


@dataclass(frozen=True)
class Arguments:
    """Arguments of a function call, already evaluated."""

    positional: list[Any]
    named: dict[str, Any] = field(default_factory=dict)

    def integer(self, index: int, name: str, default: int | None = None) -> int:
        """Return an argument as a whole number.

        Raises:
            StatementError: It is missing or is no number.
        """
        value = self.get(index, name, default)
        try:
            return int(value)
        except (TypeError, ValueError):
            raise errors.StatementError(
                100038, "22018", f"Numeric value '{value}' is not recognized"
            ) from None

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """Return an argument by position or by name."""
        if index < len(self.positional):
            return self.positional[index]
        return self.named.get(name.upper(), default)


@dataclass(frozen=True)
class Expression:
    """A constant SQL expression that the engine must evaluate, such as DATEADD(...)."""

    sql: str


def bind_value(bind: Bind | None) -> Any:
    """Return a bound variable's value as a number, a flag or text."""
    if bind is None:
        raise errors.compilation_error(2049, "42601", "Bind variable ? not set.")
    convert = {"FIXED": _fixed, "REAL": float, "BOOLEAN": lambda text: str(text).lower() == "true"}
    if bind.value is None or bind.type not in convert:
        return bind.value
    try:
        return convert[bind.type](bind.value)
    except (TypeError, ValueError):
        raise errors.StatementError(
            100038, "22018", f"Numeric value '{bind.value}' is not recognized"
        ) from None


def _fixed(text: str) -> int | float:
    return float(text) if "." in text else int(text)
