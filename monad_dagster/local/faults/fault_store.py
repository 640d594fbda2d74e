"""Faults on demand: what they are, which statements or job services they hit, how often.

Pure bookkeeping. The places that act on a fault are `faults_http.py` (answers), `faults_jobs.py`
(pools, job services, logs, events) and `faults_disk.py` (stage writes). While no fault is set,
`armed` is False and nothing else is looked at.
"""

import datetime as dt
import itertools
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from typing import Any

_MAX_DECISIONS = 20_000


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault.

    Attributes:
        name: As the command line and the control route spell it.
        summary: What a client sees.
        selectors: What may narrow it: statement, service, pool, stage, user.
        options: Its own settings with their defaults.
    """

    name: str
    summary: str
    selectors: frozenset[str]
    options: Mapping[str, Any] = field(default_factory=dict)


def _kind(name: str, selectors: str, summary: str, **options: Any) -> FaultKind:
    return FaultKind(name, summary, frozenset(selectors.split()), options)


KINDS: dict[str, FaultKind] = {
    kind.name: kind
    for kind in (
        _kind(
            "capacity-error", "pool",
            "the pool stays STARTING with error_code 392507; BACKUP_INSTANCE_FAMILIES help",
            family="*", duration_seconds=0.0,
        ),
        _kind(
            "image-pull-failure", "service pool user",
            "containers stay PENDING with 'Failed to pull image'", duration_seconds=0.0,
        ),
        _kind(
            "out-of-memory", "service pool user",
            "a running container is OOMKilled (exit code 137); the job service is FAILED",
            container="*",
        ),
        _kind(
            "node-maintenance", "service pool user",
            "the node is replaced: SIGTERM, 30 s of grace, FAILED, local logs gone",
        ),
        _kind(
            "node-loss", "service pool user",
            "the node vanishes: containers die without warning, FAILED, local logs gone",
        ),
        _kind("internal-error", "service pool user", "the job service ends as INTERNAL_ERROR"),
        _kind(
            "delayed-events", "service pool user",
            "logs and platform events reach the event table delay_seconds late",
        ),
        _kind(
            "truncated-logs", "service pool user",
            "GET_SERVICE_LOGS returns no more than max_bytes, the newest", max_bytes=1024,
        ),
        _kind(
            "statement-error", "statement user",
            "the statement fails with 000603 (XX000), not executed",
        ),
        _kind(
            "slow-answer", "statement user",
            "the statement is executed, its answer comes delay_seconds late",
        ),
        _kind(
            "lost-answer", "statement user",
            "the statement is executed, the connection ends before the answer",
            attempts=0,
        ),
        _kind(
            "http-before", "statement user", "HTTP error instead of executing the statement",
            status=503, attempts=1,
        ),
        _kind(
            "http-after", "statement user", "HTTP error after executing the statement",
            status=503, attempts=1,
        ),
        _kind(
            "expired-token", "statement user",
            "the session token has expired (390112); with master=true the master token too",
            master=False,
        ),
        _kind(
            "full-disk", "stage statement user service",
            "writing to a stage fails with 'No space left on device'",
        ),
    )
}  # fmt: skip
SELECTORS = ("statement", "service", "pool", "stage", "user")


class FaultError(ValueError):
    """A fault was asked for that does not exist or cannot be selected so."""


@dataclass(frozen=True)
class Fault:
    """A fault that is set.

    Attributes:
        id: Its number.
        kind: One of KINDS.
        selectors: Pattern (`*`, `?`) by selector, in upper case; a statement pattern matches the
            beginning of the statement.
        count: How many statements, job services or pools it hits; None is every one.
        probability: Share of the matching ones that it hits.
        seed: Seed of that choice.
        delay_seconds: How late it acts.
        persist: Whether a restarted account still has it.
        options: The kind's own settings.
    """

    id: int
    kind: str
    selectors: dict[str, str] = field(default_factory=dict)
    count: int | None = None
    probability: float = 1.0
    seed: int = 0
    delay_seconds: float = 0.0
    persist: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def option(self, name: str) -> Any:
        """Return one of the kind's settings."""
        return self.options.get(name, KINDS[self.kind].options[name])

    def matches(self, subject: Mapping[str, str | tuple[str, ...]]) -> bool:
        """Tell whether every selector fits *subject*."""
        for selector, pattern in self.selectors.items():
            values = subject.get(selector, ())
            values = (values,) if isinstance(values, str) else values
            whole = f"{pattern}*" if selector == "statement" else pattern
            if not any(fnmatchcase(value.upper(), whole) for value in values):
                return False
        return True


@dataclass
class Hit:
    """What was decided for one fault and one statement, job service or pool."""

    fault: Fault
    at: float  # seconds since the epoch, by the account's clock
    attempts: int = 0

    @property
    def due_at(self) -> float:
        """When the fault acts."""
        return self.at + self.fault.delay_seconds


@dataclass
class _State:
    fault: Fault
    random: random.Random
    hits: int = 0


def checked(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a new fault, or say what is wrong with them.

    Raises:
        FaultError: Unknown kind, selector or option, or a value of the wrong type.
    """
    kind = KINDS.get(str(request.get("kind", "")))
    if kind is None:
        raise FaultError(f"Unknown fault {request.get('kind')!r}. Known: {', '.join(KINDS)}.")
    known = {"kind", "count", "probability", "seed", "delay_seconds", "persist"}
    given = {key: value for key, value in request.items() if value is not None}
    out: dict[str, Any] = {"kind": kind.name, "selectors": {}, "options": {}}
    for key, value in given.items():
        if key in kind.options:
            out["options"][key] = _typed(key, value, type(kind.options[key]))
        elif key in SELECTORS and key in kind.selectors:
            out["selectors"][key] = " ".join(str(value).upper().split())
        elif key not in known:
            fitting = ", ".join(sorted({*kind.selectors, *kind.options, *known} - {"kind"}))
            raise FaultError(f"Fault {kind.name} has no {key!r}. It has: {fitting}.")
    if "count" in given:
        out["count"] = _typed("count", given["count"], int)
    out["probability"] = _typed("probability", given.get("probability", 1.0), float)
    if not 0 < out["probability"] <= 1:
        raise FaultError(f"probability is {out['probability']}; give more than 0 and at most 1.")
    out["seed"] = _typed("seed", given.get("seed", random.SystemRandom().randrange(2**31)), int)
    out["delay_seconds"] = _typed("delay_seconds", given.get("delay_seconds", 0.0), float)
    out["persist"] = _typed("persist", given.get("persist", False), bool)
    if min(out["delay_seconds"], out.get("count", 1) - 1) < 0:
        raise FaultError("delay_seconds must not be negative, and count at least 1.")
    return out


_KIND_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _typed(key: str, value: Any, kind: type) -> Any:
    if kind is bool and isinstance(value, str):
        value = {"true": True, "false": False}.get(value.lower(), value)
    if isinstance(value, bool) is not (kind is bool):
        raise FaultError(f"{key} is {value!r}; give {_KIND_NAMES[kind]}.")
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise FaultError(f"{key} is {value!r}; give {_KIND_NAMES[kind]}.") from None


class Faults:
    """Every fault that is set.

    Args:
        clock: The account's clock.
        save: Stores the persistent ones; called with all of them after a change.
    """

    def __init__(
        self,
        clock: Callable[[], dt.datetime],
        save: Callable[[list[dict[str, Any]]], None] = lambda _: None,
    ) -> None:
        self._clock = clock
        self._save = save
        self._lock = threading.Lock()
        self._ids = itertools.count(1)
        self._states: dict[int, _State] = {}
        self._decisions: OrderedDict[tuple[int, str], Hit | None] = OrderedDict()
        self.armed = False

    def add(self, request: Mapping[str, Any]) -> Fault:
        """Set a fault.

        Raises:
            FaultError: It cannot be set so.
        """
        fields = checked(request)
        with self._lock:
            fault = Fault(id=next(self._ids), **fields)
            self._states[fault.id] = _State(fault, random.Random(fault.seed))  # noqa: S311 - repeatable
            self.armed = True
            self._store()
        return fault

    def current(self) -> list[dict[str, Any]]:
        """Return the faults with how often each was a hit."""
        with self._lock:
            return [asdict(s.fault) | {"hits": s.hits} for s in self._states.values()]

    def clear(self, fault_id: int | None = None) -> int:
        """Remove one fault, or all; return how many there were."""
        with self._lock:
            gone = [key for key in self._states if fault_id in (None, key)]
            for key in gone:
                del self._states[key]
            for key in [key for key in self._decisions if key[0] in gone]:
                del self._decisions[key]
            self.armed = bool(self._states)
            self._store()
            return len(gone)

    def _store(self) -> None:
        self._save([asdict(s.fault) for s in self._states.values() if s.fault.persist])

    def restore(self, stored: list[dict[str, Any]]) -> None:
        """Set the persistent faults of an earlier process again."""
        for item in stored:
            self.add({**item, **item["selectors"], **item["options"], "id": None,
                      "selectors": None, "options": None})  # fmt: skip

    def decide(
        self, kind: str, key: str, subject: Mapping[str, str | tuple[str, ...]]
    ) -> Hit | None:
        """Return the hit of a fault of *kind* on *subject*, or None.

        Args:
            kind: The fault.
            key: What names the statement, job service or pool; the decision for it is made once.
            subject: Values by selector.
        """
        if not self.armed:
            return None
        with self._lock:
            for state in self._states.values():
                if state.fault.kind == kind:
                    hit = self._decide(state, key, subject)
                    if hit is not None:
                        return hit
        return None

    def _decide(
        self, state: _State, key: str, subject: Mapping[str, str | tuple[str, ...]]
    ) -> Hit | None:
        decision = (state.fault.id, key)
        if decision in self._decisions:
            return self._decisions[decision]
        if not state.fault.matches(subject):
            return None  # not remembered: a subject may gain values, such as a node
        hit = None
        exhausted = state.fault.count is not None and state.hits >= state.fault.count
        if not exhausted and state.random.random() < state.fault.probability:
            state.hits += 1
            hit = Hit(state.fault, self._clock().timestamp())
        self._decisions[decision] = hit
        while len(self._decisions) > _MAX_DECISIONS:
            self._decisions.popitem(last=False)
        return hit

    def attempt(
        self, kind: str, key: str, subject: Mapping[str, str | tuple[str, ...]]
    ) -> Hit | None:
        """Like `decide`, for faults that spoil a number of attempts (0 is all) of what they hit."""
        hit = self.decide(kind, key, subject)
        if hit is None:
            return None
        with self._lock:
            limit = hit.fault.options.get("attempts", KINDS[kind].options.get("attempts", 1))
            if limit and hit.attempts >= limit:
                return None
            hit.attempts += 1
        return hit

    def holding(
        self, kind: str, key: str, subject: Mapping[str, str | tuple[str, ...]]
    ) -> Hit | None:
        """Like `decide`, for faults that last: none before its delay or after its duration."""
        hit = self.decide(kind, key, subject)
        if hit is None:
            return None
        now, duration = self._clock().timestamp(), hit.fault.option("duration_seconds")
        if now < hit.due_at or (duration and now >= hit.due_at + duration):
            return None
        return hit
