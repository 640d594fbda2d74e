"""Credits of a job service, estimated from node time.

Snowflake bills nodes, per pool and hour, not job services. The estimate is node-seconds times a
configured rate; no rate is invented: only one is publicly confirmed, the rest is configuration.
"""

from collections.abc import Mapping

# Snowflake's quickstart names this one; all others are in the Service Consumption Table.
KNOWN_CREDITS_PER_HOUR: Mapping[str, float] = {"GPU_NV_S": 0.57}


def estimate_credits(
    instance_family: str,
    node_seconds: float,
    *,
    credits_per_hour: Mapping[str, float] | None = None,
) -> float | None:
    """Estimate the credits of *node_seconds*, or None for a family without a rate.

    Args:
        instance_family: The pool's family.
        node_seconds: Seconds of running time, summed over the nodes used.
        credits_per_hour: Configured rates by family; they win over the known one.
    """
    rate = {**KNOWN_CREDITS_PER_HOUR, **(credits_per_hour or {})}.get(instance_family)
    if rate is None:
        return None
    return max(0.0, node_seconds) * rate / 3600
