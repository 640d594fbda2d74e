"""What an interrupt does to a running job service.

Only a user's cancel ends it. An eviction, a redeployment or a lost worker detaches: the job
service goes on, its launch is recorded, and a retry finds it.
"""

import os
import sys
from collections.abc import Callable
from enum import StrEnum

from monad_dagster.errors import ConfigError, SnowflakeError, problem
from monad_dagster.pipes import compat
from monad_dagster.pipes.pacing import Clock
from monad_dagster.spcs import sql
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.job_service import JobServices

CANCEL_WAIT_SECONDS = 60.0
CANCEL_POLL_SECONDS = 1.0


class OnInterrupt(StrEnum):
    """What to do when the step is interrupted."""

    AUTO = "auto"
    CANCEL = "cancel"
    DETACH = "detach"

    @classmethod
    def parse(cls, text: str) -> "OnInterrupt":
        """Read the setting.

        Raises:
            ConfigError: It is none of the three.
        """
        try:
            return cls(text)
        except ValueError as error:
            raise ConfigError(
                problem(
                    f"on_interrupt {text!r} is not known",
                    "",
                    f"Set one of {', '.join(cls)} on the PipesSPCSClient",
                )
            ) from error


def is_terminal_session() -> bool:
    """Whether somebody sits at this very run: then Ctrl-C means cancel.

    True for a run in the foreground of a terminal, its step processes included. A run that a
    launcher started (`dagster api execute_run`, as under `dagster dev`) is never one.
    """
    if sys.argv[1:2] == ["api"]:
        return False
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def wants_cancel(
    policy: OnInterrupt, *, forward_termination: bool, run_is_cancelling: bool, at_terminal: bool
) -> bool:
    """Decide whether an interrupt cancels the job service."""
    if not forward_termination or policy is OnInterrupt.DETACH:
        return False
    return policy is OnInterrupt.CANCEL or run_is_cancelling or at_terminal


def handle_interrupt(
    context: compat.ExecutionContext,
    services: JobServices,
    name: QualifiedName,
    *,
    policy: OnInterrupt,
    forward_termination: bool,
    clock: Clock,
) -> str:
    """Cancel the job service or leave it running, and say which; call with interrupts deferred.

    Returns:
        The last status seen, or `detached`.
    """
    cancel = wants_cancel(
        policy,
        forward_termination=forward_termination,
        run_is_cancelling=compat.run_is_cancelling(context),
        at_terminal=is_terminal_session(),
    )
    if not cancel:
        warn_of_detachment(context, name)
        return "detached"
    compat.report_canceling(context)
    context.log.info(f"Cancelling job service {name}.")
    try:
        status = cancel_and_wait(services, name, clock=clock, log=context.log.info)
    except SnowflakeError as error:
        context.log.error(
            f"Job service {name} was not cancelled: {error} "
            f"Cancel it by hand: {sql.cancel_job_service(name)}"
        )
        status = "unknown"
    return status


def warn_of_detachment(context: compat.ExecutionContext, name: QualifiedName) -> None:
    """Say that a job service goes on without this run, and how to end it by hand."""
    context.log.warning(
        f"Detached: job service {name} keeps running and a retry will find it. "
        f"To end it by hand: {sql.cancel_job_service(name)}; or monad-dagster cancel {name.name}"
    )


def cancel_and_wait(
    services: JobServices,
    name: QualifiedName,
    *,
    clock: Clock,
    log: Callable[[str], None],
    wait_seconds: float = CANCEL_WAIT_SECONDS,
) -> str:
    """Cancel a job service and wait a bounded time for its end.

    Returns:
        The last status seen; DELETED when there is no such job service.
    """
    if not services.cancel(name):
        log(f"Job service {name} does not exist; there is nothing to cancel.")
        return "DELETED"
    deadline = clock.now() + wait_seconds
    while True:
        try:
            found = services.describe(name)
        except SnowflakeError as error:
            # The cancellation was accepted; what comes of it is asked again.
            status = "CANCELLING"
            log(f"The end of {name} could not be seen, asking again: {error}")
        else:
            status = found.raw_status if found else "DELETED"
            if found is None or found.status.is_terminal:
                log(f"Job service {name} ended as {status}.")
                return status
        if clock.now() >= deadline:
            log(f"Job service {name} is still {status} after {wait_seconds:.0f} s.")
            return status
        clock.sleep(CANCEL_POLL_SECONDS)
