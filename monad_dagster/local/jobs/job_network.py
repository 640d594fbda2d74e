"""Addresses and names of service instances, kept up to date as instances come and go.

An instance that declares no endpoint promises nothing to other services, so only its own job
service's instances resolve its name. Deviation from Snowflake: a service's own name leads to its
instances directly, there is no virtual address before them, and undeclared ports are not closed.
"""

from collections.abc import Iterable
from pathlib import Path

from monad_dagster.local.jobs.job_model import InstanceState, Job
from monad_dagster.local.jobs.job_views import dns_domain
from monad_dagster.local.runners.addresses import Peer, hosts_text, service_names, write_hosts


def hostname(job: Job, instance: InstanceState) -> str:
    """Return an instance's host name."""
    return f"{dns_label(job.name)[:55]}-{instance.index}"


def dns_label(name: str) -> str:
    """Return a service's name as a DNS label."""
    return name.lower().replace("_", "-")


def hosts_path(root: Path, job: Job, instance: InstanceState) -> Path:
    """Return where an instance's hosts file is."""
    return root / job.id / str(instance.index) / "hosts"


def running(job: Job) -> list[InstanceState]:
    """Return the instances that can be reached."""
    return [
        instance
        for instance in job.instances
        if instance.address is not None and not (instance.launched and instance.is_over)
    ]


def taken_addresses(jobs: Iterable[Job]) -> set[str]:
    """Return the addresses that instances hold."""
    return {str(instance.address) for job in jobs for instance in running(job)}


def update_hosts(root: Path, jobs: Iterable[Job], changed: Job, declares: set[str]) -> None:
    """Write the hosts files of the instances that see a change.

    Args:
        root: The job services' directory.
        jobs: Every job service that is not over.
        changed: The one whose instances came or went.
        declares: Ids of the job services that declare endpoints.
    """
    active = [job for job in jobs if job.id == changed.id or running(job)]
    for job in active:
        if job.id != changed.id and changed.id not in declares:
            continue
        peers = [
            peer
            for other in active
            if other.id == job.id or other.id in declares
            for peer in _peers(other, job)
        ]
        for instance in running(job):
            path = hosts_path(root, job, instance)
            path.parent.mkdir(parents=True, exist_ok=True)
            own = str(instance.address)
            write_hosts(path, hosts_text(own, hostname(job, instance), peers))


def _peers(service: Job, asking: Job) -> list[Peer]:
    names = service_names(
        dns_label(service.name),
        dns_domain(service.database, service.schema),
        same_schema=(service.database, service.schema) == (asking.database, asking.schema),
    )
    return [Peer(str(instance.address), names) for instance in running(service)]
