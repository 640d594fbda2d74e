"""Facts about the machine, for the head of a report."""

import os
import platform
from pathlib import Path


def machine_facts() -> dict[str, str | int | float]:
    """Return processor, cores, memory and operating system."""
    facts: dict[str, str | int | float] = {
        "system": platform.system(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 0,
    }
    cpu, memory = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    if cpu.exists():
        names = [line for line in cpu.read_text().splitlines() if line.startswith("model name")]
        if names:
            facts["processor"] = names[0].split(":", 1)[1].strip()
    if memory.exists():
        facts["memory_gib"] = round(int(memory.read_text().split()[1]) / 1024**2, 1)
    return facts
