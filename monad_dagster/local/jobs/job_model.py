"""What the account remembers of a job service; plain data, kept as JSON in the catalog."""

import datetime as dt
from dataclasses import asdict, dataclass, field
from typing import Any

from monad_dagster.local.jobs.job_states import (
    ENDED_CONTAINERS,
    TERMINAL,
    WAITING_TO_START,
    instance_status,
)

RETENTION = dt.timedelta(days=30)


@dataclass
class ContainerState:
    """One container of one instance."""

    name: str
    image: str
    digest: str
    status: str = "PENDING"
    message: str = WAITING_TO_START
    started_at: float | None = None
    exit_code: int | None = None


@dataclass
class InstanceState:
    """One instance; `node` is the node's number in the compute pool once it is placed."""

    index: int
    containers: list[ContainerState]
    created_at: float
    node: int | None = None
    launched: bool = False
    status: str = "PENDING"
    started_at: float | None = None
    address: str | None = None  # among the instances, once it is about to start
    lost: bool = False  # the node is being taken away or is gone

    @property
    def is_over(self) -> bool:
        """Tell whether no container runs any more."""
        return all(container.status in ENDED_CONTAINERS for container in self.containers)

    def aggregate(self, *, terminating: bool) -> str:
        """Return the status that the containers' statuses give."""
        statuses = [container.status for container in self.containers]
        return instance_status(statuses, terminating=terminating)


@dataclass
class StageMount:
    """A stage volume, resolved when the job service was created."""

    volume: str
    database: str
    schema: str
    stage: str
    path: str
    read_only: bool


@dataclass
class ImageRef:
    """An image of the specification, frozen to a digest when the job service was created."""

    repository: str  # key in the image store
    name: str
    digest: str


@dataclass
class Job:
    """A job service. Times are seconds since the epoch."""

    id: str
    database: str
    schema: str
    name: str
    owner: str
    user: str
    pool: str
    family: str
    query_id: str
    created_at: float
    updated_at: float
    spec_text: str
    rendered: str
    digest: str
    images: dict[str, ImageRef]
    stages: list[StageMount]
    instances: list[InstanceState]
    is_async: bool = False
    replicas: int | None = None
    comment: str | None = None
    warehouse: str | None = None
    integrations: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    status: str = "PENDING"
    cancelling: bool = False
    completed_at: float | None = None
    deleted_at: float | None = None
    logs_gone: bool = False

    @property
    def fqn(self) -> str:
        """The dotted name."""
        return f"{self.database}.{self.schema}.{self.name}"

    @property
    def is_terminal(self) -> bool:
        """Tell whether the status is final."""
        return self.status in TERMINAL

    @property
    def is_over(self) -> bool:
        """Tell whether the status is final and nothing runs any more."""
        return self.is_terminal and all(i.is_over or not i.launched for i in self.instances)

    def as_document(self) -> dict[str, Any]:
        """Return the job service as JSON-able data."""
        return asdict(self)

    @classmethod
    def from_document(cls, data: dict[str, Any]) -> "Job":
        """Return the job service of a stored document."""
        instances = [
            InstanceState(
                **{**item, "containers": [ContainerState(**c) for c in item["containers"]]}
            )
            for item in data["instances"]
        ]
        images = {name: ImageRef(**item) for name, item in data["images"].items()}
        stages = [StageMount(**item) for item in data["stages"]]
        return cls(**{**data, "instances": instances, "images": images, "stages": stages})


def as_time(seconds: float | None) -> dt.datetime | None:
    """Return stored seconds as an aware time."""
    return None if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)
