"""Statement errors of the local account, with Snowflake's numbers, SQL states and wording.

A handler raises `StatementError`; the protocol turns it into an error envelope. Texts marked
"approximate" were not found in public material.
"""


class StatementError(Exception):
    """A statement failed in a way Snowflake would report.

    Attributes:
        errno: Snowflake's error number, such as 2003.
        sqlstate: The SQL state, such as 42S02.
        message: The text a client shows.
    """

    def __init__(self, errno: int, sqlstate: str, message: str) -> None:
        super().__init__(message)
        self.errno = errno
        self.sqlstate = sqlstate
        self.message = message

    @property
    def code(self) -> str:
        """The number as the envelope carries it, six digits."""
        return f"{self.errno:06d}"


class LoginError(StatementError):
    """A login or token request was refused."""

    def __init__(self, errno: int, message: str) -> None:
        super().__init__(errno, "08001", message)


def compilation_error(errno: int, sqlstate: str, text: str) -> StatementError:
    """Return an error with the "SQL compilation error" prefix."""
    return StatementError(errno, sqlstate, f"SQL compilation error:\n{text}")


def does_not_exist(kind: str, name: str) -> StatementError:
    """Return 2003 for an object that is missing or invisible.

    Args:
        kind: The object kind as Snowflake prints it, such as "Stage"; "Object" for tables.
        name: The name as the caller may see it.
    """
    label = kind[:1].upper() + kind[1:].lower()
    sqlstate = "42S02" if label in {"Object", "Table", "View"} else "02000"
    return compilation_error(2003, sqlstate, f"{label} '{name}' does not exist or not authorized.")


def cannot_operate(name: str = "") -> StatementError:
    """Return 2043 for an object that is missing or on which the operation cannot be done."""
    suffix = f" {name}" if name else ""
    return compilation_error(
        2043, "02000", f"Object does not exist, or operation cannot be performed.{suffix}"
    )


def already_exists(name: str) -> StatementError:
    """Return 2002 for a name that is held."""
    return compilation_error(2002, "42710", f"Object '{name}' already exists.")


def insufficient_privileges(kind: str, name: str) -> StatementError:
    """Return 3001 for a visible object that the role may not operate on."""
    return StatementError(
        3001,
        "42501",
        "SQL access control error:\n"
        f"Insufficient privileges to operate on {kind.lower()} '{name}'.",
    )


def syntax_error(near: str, position: int = 0, line: int = 1) -> StatementError:
    """Return 1003 for text the parser does not understand."""
    text = f"unexpected '{near}'." if near else "unexpected '<EOF>'."
    return compilation_error(
        1003, "42000", f"syntax error line {line} at position {position} {text}"
    )


def unsupported(feature: str) -> StatementError:
    """Return 2/0A000 for something the local account does not emulate."""
    return compilation_error(2, "0A000", f"Unsupported feature '{feature}'.")


def invalid_value(value: object, parameter: str) -> StatementError:
    """Return 1008 for a property value that is not accepted."""
    return compilation_error(1008, "22023", f"invalid value [{value}] for parameter '{parameter}'")


def invalid_property(name: str, kind: str) -> StatementError:
    """Return 1007-like error for a property the statement does not have (approximate)."""
    return compilation_error(1420, "22023", f"invalid property '{name}' for '{kind.upper()}'")


def missing_property(name: str) -> StatementError:
    """Return 1057 for a required property (approximate)."""
    return compilation_error(1057, "22023", f"Missing option(s): [{name.upper()}].")


def invalid_privilege(privilege: str, kind: str) -> StatementError:
    """Return 3008 for a privilege that the object kind does not have (approximate text)."""
    return compilation_error(
        3008,
        "0A000",
        f"Invalid object type '{kind.upper()}' for privilege '{privilege.upper()}'.",
    )


def no_current_database() -> StatementError:
    """Return 90105 for a name that needs a current database."""
    return StatementError(
        90105,
        "22000",
        "Cannot perform operation. This session does not have a current database. "
        "Call 'USE DATABASE', or use a qualified name.",
    )


def no_current_schema() -> StatementError:
    """Return 90106 for a name that needs a current schema."""
    return StatementError(
        90106,
        "22000",
        "Cannot perform operation. This session does not have a current schema. "
        "Call 'USE SCHEMA', or use a qualified name.",
    )


def no_warehouse() -> StatementError:
    """Return 606 for a query without a warehouse that the role may use."""
    return StatementError(
        606,
        "57P03",
        "No active warehouse selected in the current session.  "
        "Select an active warehouse with the 'use warehouse' command.",
    )


def canceled() -> StatementError:
    """Return 604 for a statement that was canceled."""
    return StatementError(604, "57014", "SQL execution canceled")


def internal_error(incident: str) -> StatementError:
    """Return 603 for an unexpected failure inside the account."""
    return StatementError(
        603, "XX000", f"SQL execution internal error:\nProcessing aborted by error {incident}"
    )
