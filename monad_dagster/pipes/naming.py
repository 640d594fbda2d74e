"""The name of a job service: the idempotency key of one attempt.

A finished job service keeps its name for 30 days, so a name is derived from what is attempted
and never reused for anything else.
"""

import hashlib
import re

MAX_ASSET_LENGTH = 24
MAX_PARTITION_LENGTH = 14
HASH_LENGTH = 10


def job_service_name(
    *, asset: str, partition: str | None, run_family: str, attempt: int, prefix: str = ""
) -> str:
    """Derive the unqualified name of a job service.

    Args:
        asset: Asset key or step key.
        partition: Partition key, if any.
        run_family: Id of the first run of a chain of retries.
        attempt: Counts from 1 within the family.
        prefix: Put in front, to tell deployments apart.
    """
    identity = "\0".join((prefix, asset, partition or "", run_family))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:HASH_LENGTH].upper()
    words = [_slug(prefix, 8), _slug(asset, MAX_ASSET_LENGTH)]
    words += [_slug(partition or "", MAX_PARTITION_LENGTH), digest, str(attempt)]
    name = "_".join(word for word in words if word)
    return name if name[0].isalpha() else f"J_{name}"


def attempt_name(job_service: str) -> str:
    """Return the directory name of an attempt: the job service's name in lower case."""
    return job_service.lower()


def _slug(text: str, length: int) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_").upper()[:length].strip("_")
