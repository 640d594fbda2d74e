"""Resource quantities of a service specification: CPU, memory, GPUs.

Follows the page "Service specification reference". Memory needs a unit; CPU is a decimal
or thousandths; GPUs are whole numbers.
"""

import re

_MEMORY = re.compile(r"^(\d+(?:\.\d+)?)(k|Ki|M|Mi|G|Gi|T|Ti)$")
_CPU_MILLI = re.compile(r"^(\d+)m$")
_CPU = re.compile(r"^\d+(?:\.\d+)?$")
_GPU = re.compile(r"^\d+$")
_DURATION = re.compile(r"^(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?$")
_UNITS = {
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


class QuantityError(ValueError):
    """A quantity is not written as Snowflake accepts it."""


def parse_memory(text: object) -> int:
    """Return the bytes of a memory quantity such as `4Gi`."""
    found = _MEMORY.match(str(text))
    if isinstance(text, bool) or not found:
        raise QuantityError(
            f"invalid memory value '{text}', expected a number with a unit such as 4Gi"
        )
    return int(float(found[1]) * _UNITS[found[2]])


def parse_cpu(text: object) -> float:
    """Return the cores of a CPU quantity such as `0.5` or `500m`."""
    value = str(text)
    milli = _CPU_MILLI.match(value)
    if milli:
        return int(milli[1]) / 1000
    if isinstance(text, bool) or not _CPU.match(value):
        raise QuantityError(
            f"invalid cpu value '{text}', expected a decimal or thousandths such as 500m"
        )
    return float(value)


def parse_gpu(text: object) -> int:
    """Return a GPU count, which is a whole number."""
    if isinstance(text, bool) or not _GPU.match(str(text)):
        raise QuantityError(f"invalid nvidia.com/gpu value '{text}', expected a whole number")
    return int(str(text))


def parse_duration(text: object) -> int:
    """Return the seconds of a period such as `1h30m`."""
    value = str(text)
    found = _DURATION.match(value)
    if not value or not found:
        raise QuantityError(
            f"invalid period '{text}', expected hours, minutes, seconds such as 1h30m"
        )
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def format_memory(num_bytes: int) -> str:
    """Return bytes as the shortest exact binary quantity."""
    if num_bytes % 2**29 == 0:
        return f"{_number(num_bytes / 2**30)}Gi"
    if num_bytes % 2**20 == 0:
        return f"{num_bytes // 2**20}Mi"
    if num_bytes % 2**10 == 0:
        return f"{num_bytes // 2**10}Ki"
    return f"{_number(num_bytes / 10**6)}M"


def format_cpu(cores: float) -> str:
    """Return cores as a decimal without trailing zeros."""
    return _number(cores)


def format_flag(value: object) -> str:
    """Return a flag as SHOW prints it."""
    return "true" if value else "false"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(round(value, 6))
