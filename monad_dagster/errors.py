"""The exception tree of the project.

    MonadDagsterError
      ConfigError (also ValueError)        the caller can fix it without touching Snowflake
      ImageError                           build or push
      StageError                           upload, list, download
      SpecError (also ValueError)          the specification is not valid
      JobServiceError
        JobServiceExistsError              the name is held by another specification
        JobServiceFailedError              carries status, exit code, last log lines
        JobServiceTimeoutError             carries last status and elapsed seconds
        ComputePoolUnavailableError
      SnowflakeError                       carries errno, sqlstate, query id, statement kind
        ConnectionFailedError              account unreachable or login refused
      LocalAccountError                    the embedded account cannot start, stop or be found

Every message has four parts: what failed, what was observed, what to do next, where to look.
`problem()` builds such a message, so that no raise site forgets a part.
"""


def problem(failed: str, observed: str = "", do: str = "", look: str = "") -> str:
    """Join the four parts of an error message in their fixed order.

    Args:
        failed: What failed, with the fully qualified object.
        observed: Value, status, error number, query id or seconds.
        do: The next step, as a command or a setting.
        look: Log, stage path or page with more.
    """
    failed, observed, do, look = (part.strip() for part in (failed, observed, do, look))
    if observed[:1].islower() and not failed.endswith((".", ":")):
        failed, observed = f"{failed}: {observed}", ""
    if look[:1].islower():  # a command or a page
        look = f"See {look}"
    parts = [part for part in (failed, observed, do, look) if part]
    return " ".join(part if part.endswith((".", ":", "`")) else f"{part}." for part in parts)


class MonadDagsterError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigError(MonadDagsterError, ValueError):
    """A setting, file or argument is wrong; nothing was sent to Snowflake."""


class ImageError(MonadDagsterError):
    """An image could not be built or pushed."""


class StageError(MonadDagsterError):
    """A stage upload, listing or download failed."""


class SpecError(MonadDagsterError, ValueError):
    """A service specification is not valid."""


class JobServiceError(MonadDagsterError):
    """Base of job service failures."""


class JobServiceExistsError(JobServiceError):
    """A job service of that name exists with another specification."""


class JobServiceFailedError(JobServiceError):
    """A job service ended without success.

    Attributes:
        status: The last status Snowflake reported.
        exit_code: Exit code of the first failed container, if known.
        log_tail: Last log lines, oldest first.
    """

    def __init__(
        self,
        message: str,
        *,
        status: str = "FAILED",
        exit_code: int | None = None,
        log_tail: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.exit_code = exit_code
        self.log_tail = log_tail


class JobServiceTimeoutError(JobServiceError):
    """A bounded wait for a job service ran out.

    Attributes:
        status: The last status seen.
        elapsed_seconds: How long the wait lasted.
    """

    def __init__(self, message: str, *, status: str, elapsed_seconds: float) -> None:
        super().__init__(message)
        self.status = status
        self.elapsed_seconds = elapsed_seconds


class ComputePoolUnavailableError(JobServiceError):
    """A compute pool is missing, suspended for good, or has no capacity."""


class SnowflakeError(MonadDagsterError):
    """Snowflake answered a statement with an error.

    Attributes:
        errno: Snowflake's error number, such as 2003.
        sqlstate: The SQL state, such as 42S02.
        query_id: The statement's query id, if it got one.
        statement_kind: The statement's first words, without literals.
    """

    def __init__(
        self,
        message: str,
        *,
        errno: int | None = None,
        sqlstate: str | None = None,
        query_id: str | None = None,
        statement_kind: str = "",
    ) -> None:
        super().__init__(message)
        self.errno = errno
        self.sqlstate = sqlstate
        self.query_id = query_id
        self.statement_kind = statement_kind


class ConnectionFailedError(SnowflakeError):
    """The account cannot be reached or refused the login."""


class LocalAccountError(MonadDagsterError):
    """The embedded local account cannot start, stop or be found."""
