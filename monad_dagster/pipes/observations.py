"""Progress of a running job service as observations of its asset, rate-limited."""

from collections.abc import Mapping
from typing import Any

from dagster import AssetObservation

from monad_dagster.pipes import compat
from monad_dagster.pipes.pacing import Clock, RateLimit

METRICS = "metrics"
HEARTBEAT = "heartbeat"


class MetricsObserver:
    """Turns messages of kind `metrics` into asset observations."""

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

    def __call__(self, payload: Mapping[str, Any]) -> None:
        """Take one custom message."""
        if payload.get("kind") in (METRICS, HEARTBEAT):
            self.last_sign_at = self._clock.now()
        if payload.get("kind") != METRICS:
            return
        self._unsent = payload
        if self._limit.allows():
            self.flush()

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
