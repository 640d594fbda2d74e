"""What is to befall each materialization of a chaos run: drawn from the seed, before it begins."""

import random
from dataclasses import dataclass

from tests.chaos.location import partition_key

MAX_STATEMENT = 30  # a short materialization sends about so many
FIRST_PARTITION = 100  # those below belong to the signal matrix
NUM_POOLS = 4
STARVED = "CHAOS_STARVED"
STARVED_QUEUE_SECONDS = 3.0
BEHAVIORS = {"succeed": 86, "raise": 4, "exit": 4, "silent": 2, "forget": 2, "abandoned": 2}
FATES = {
    "alone": 44,  # nothing happens to the worker
    "crash": 32,  # SIGKILL at a statement, before it is sent or after it was answered
    "SIGKILL": 8,  # at a random moment
    "SIGTERM": 10,
    "cancel": 6,
}
ABANDONED_SECONDS = 900.0


def pool_name(number: int) -> str:
    """Return the name of one of the pools."""
    return f"CHAOS_{number}"


@dataclass(frozen=True)
class Fate:
    """What happens to one run worker.

    Attributes:
        kind: One of FATES.
        statement: At which statement a crash comes.
        after: Whether that is after its answer.
        seconds: How long after the start a signal comes.
    """

    kind: str = "alone"
    statement: int | None = None
    after: bool = False
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """How one materialization goes.

    Attributes:
        partition: Its partition.
        behavior: What its script does.
        seconds: How long the script works.
        pool: Where it runs.
        fates: What happens to its first run workers; later ones are left alone.
        tagged: Whether its retries carry Dagster's tag.
    """

    partition: str
    behavior: str
    seconds: float
    pool: str
    fates: tuple[Fate, ...]
    tagged: bool


def draw(seed: int, number: int) -> Plan:
    """Draw the plan of one materialization."""
    chance = random.Random(f"{seed}/{number}")
    behavior = _pick(chance, BEHAVIORS)
    fates = tuple(_fate(chance) for _ in range(3))
    seconds = chance.uniform(0.0, 2.0)
    pool = STARVED if chance.random() < 0.05 else pool_name(chance.randrange(NUM_POOLS))
    if behavior == "abandoned":
        # Killed right after the submission of something long, and nobody comes back to it.
        statement = chance.randint(8, MAX_STATEMENT)
        fates, seconds = (Fate("crash", statement, after=True),), ABANDONED_SECONDS
        pool = pool_name(0)
    return Plan(
        partition_key(FIRST_PARTITION + number),
        behavior,
        seconds,
        pool,
        fates,
        chance.random() < 0.6,
    )


def _fate(chance: random.Random) -> Fate:
    kind = _pick(chance, FATES)
    statement = chance.randint(1, MAX_STATEMENT) if kind == "crash" else None
    return Fate(kind, statement, chance.random() < 0.5, chance.uniform(0.2, 4.0))


def _pick(chance: random.Random, weights: dict[str, int]) -> str:
    return chance.choices(list(weights), list(weights.values()))[0]


def account_faults(seed: int) -> list[tuple[str, dict[str, object]]]:
    """Return the faults of the account for the whole run, as (kind, fields)."""
    launch = "EXECUTE JOB SERVICE"
    faults: list[tuple[str, dict[str, object]]] = [
        ("lost-answer", {"probability": 0.01}),
        ("lost-answer", {"probability": 0.10, "statement": launch}),
        ("lost-answer", {"probability": 0.05, "statement": launch, "attempts": 1}),
        ("http-before", {"probability": 0.01}),
        ("http-after", {"probability": 0.01}),
        ("http-after", {"probability": 0.10, "statement": launch}),
        ("slow-answer", {"probability": 0.02, "delay_seconds": 1.5}),
        ("slow-answer", {"probability": 0.10, "delay_seconds": 2.0, "statement": launch}),
        ("statement-error", {"probability": 0.005}),
        ("expired-token", {"probability": 0.005}),
        ("node-loss", {"probability": 0.06, "delay_seconds": 0.4, "service": "TOY_*"}),
        ("node-maintenance", {"probability": 0.03, "delay_seconds": 0.4, "service": "TOY_*"}),
        ("internal-error", {"probability": 0.03, "delay_seconds": 0.2, "service": "TOY_*"}),
        ("truncated-logs", {"probability": 0.20, "max_bytes": 120, "service": "TOY_*"}),
        ("delayed-events", {"probability": 0.20, "delay_seconds": 3.0, "service": "TOY_*"}),
        ("capacity-error", {"duration_seconds": 6.0, "pool": pool_name(1)}),
        ("capacity-error", {"duration_seconds": 12.0, "pool": STARVED}),
    ]
    return [
        (kind, {**fields, "seed": seed * 100 + number, "persist": True})
        for number, (kind, fields) in enumerate(faults)
    ]
