"""What a running job service says of itself: progress as observations, and signs of life."""

from collections.abc import Mapping
from typing import Any

from dagster import AssetObservation

from monad_dagster.pipes import compat
from monad_dagster.pipes.pacing import Clock, RateLimit

METRICS = "metrics"
HEARTBEAT = "heartbeat"


class MetricsObserver:
    """Turns messages of kind `metrics` into asset observations, and remembers signs of life.

    Attributes:
        last_sign_at: When the last metrics or heartbeat message was read; None before the first.
        last_step: The step it named last.
        last_step_at: When that step was first heard of.
    """

    def __init__(
        self, context: compat.ExecutionContext, *, interval_seconds: float, clock: Clock
    ) -> None:
        """Let the first message through.

        Args:
            context: The executing step.
            interval_seconds: Shortest time between two observations.
            clock: Time.
        """
        self._context = context
        self._clock = clock
        self._limit = RateLimit(interval_seconds, clock.now)
        self._unsent: Mapping[str, Any] | None = None
        self.last_sign_at: float | None = None
        self.last_step: int | None = None
        self.last_step_at: float | None = None

    def __call__(self, payload: Mapping[str, Any]) -> None:
        """Take one custom message."""
        if payload.get("kind") not in (METRICS, HEARTBEAT):
            return
        self._note_sign(payload.get("step"))
        if payload.get("kind") != METRICS:
            return
        # Validation comes in a message of its own: held back with the next one, not replaced by it.
        held = (self._unsent or {}).get("values")
        fresh = payload.get("values")
        if isinstance(held, Mapping) and isinstance(fresh, Mapping):
            payload = {**payload, "values": {**held, **fresh}}
        self._unsent = payload
        if self._limit.allows():
            self.flush()

    def _note_sign(self, step: object) -> None:
        now = self._clock.now()
        self.last_sign_at = now
        if isinstance(step, int) and step != self.last_step:
            self.last_step, self.last_step_at = step, now

    def flush(self) -> None:
        """Send the newest message that was held back."""
        payload, self._unsent = self._unsent, None
        if payload is None or not self._context.has_assets_def:
            return
        metadata = observation_metadata(payload)
        for key in sorted(self._context.selected_asset_keys)[:1]:
            partition = compat.partition_key_of(self._context)
            self._context.log_event(
                AssetObservation(asset_key=key, partition=partition, metadata=metadata)
            )


class StallDetector:
    """Says when a running job service has stopped to give signs of life, once for each silence."""

    def __init__(self, observer: MetricsObserver, *, after_seconds: float, clock: Clock) -> None:
        """Watch *observer*.

        Args:
            observer: Hears heartbeats and progress.
            after_seconds: How long a silence is a stall.
            clock: Time.
        """
        self._observer = observer
        self._after_seconds = after_seconds
        self._clock = clock
        self._told: set[tuple[str, float]] = set()

    def look(self) -> str | None:
        """Return what has stopped, or None.

        A job service that never sent a heartbeat is no stall: its image may not send any. A
        heartbeat comes from a thread of its own; a step that stays the same betrays a loop that
        hangs while the thread goes on.
        """
        now = self._clock.now()
        for what, since in self._silences():
            if now - since > self._after_seconds and (what, since) not in self._told:
                self._told.add((what, since))
                return f"{what} for {(now - since) / 60:.0f} minutes"
        return None

    def _silences(self) -> list[tuple[str, float]]:
        observer, found = self._observer, []
        if observer.last_sign_at is not None:
            found.append(("no heartbeat", observer.last_sign_at))
        if observer.last_step_at is not None:
            found.append((f"step {observer.last_step} is the last one", observer.last_step_at))
        return found


def observation_metadata(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Write a metrics message as metadata: step, percent, and each value under `training/`."""
    metadata: dict[str, Any] = {}
    step, total = payload.get("step"), payload.get("total")
    if isinstance(step, int):
        metadata["training/step"] = step
    if isinstance(total, int) and total > 0:
        metadata["training/total_steps"] = total
        if isinstance(step, int):
            metadata["training/percent"] = round(100 * step / total, 2)
    values = payload.get("values")
    for name, value in values.items() if isinstance(values, Mapping) else ():
        if isinstance(value, int | float | str):
            metadata[f"training/{name}"] = value
    return metadata
