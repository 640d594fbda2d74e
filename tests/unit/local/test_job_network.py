"""Addresses of instances and the names that lead to them."""

import ipaddress

import pytest

from monad_dagster.local.jobs import job_network
from monad_dagster.local.jobs.job_model import ContainerState, InstanceState, Job
from monad_dagster.local.jobs.job_views import dns_domain
from monad_dagster.local.runners.addresses import (
    loopback_address,
    subnet_address,
    write_hosts,
)
from monad_dagster.local.runners.base import RunnerError


def job(name, *addresses, schema="S"):
    """Return a job service whose instances have these addresses."""
    instances = [
        InstanceState(index, [ContainerState("main", "i", "d", status="READY")], 0.0,
                      launched=True, address=address)
        for index, address in enumerate(addresses)
    ]  # fmt: skip
    return Job(
        id=name, database="DB", schema=schema, name=name, owner="R", user="U", pool="P",
        family="F", query_id="q", created_at=0, updated_at=0, spec_text="", rendered="", digest="",
        images={}, stages=[], instances=instances,
    )  # fmt: skip


def names_in(root, which, index=0):
    """Return {name: addresses} of an instance's hosts file."""
    found = {}
    for line in (
        job_network.hosts_path(root, which, which.instances[index]).read_text().splitlines()
    ):
        address, *names = line.split()
        for name in names:
            found.setdefault(name, []).append(address)
    return found


def test_replicas_resolve_each_other(tmp_path):
    """The bare name, the full name and `instances.` lead to every instance that runs."""
    batch = job("MY_BATCH", "127.70.0.1", "127.70.0.2")
    job_network.update_hosts(tmp_path, [batch], batch, set())
    found = names_in(tmp_path, batch)
    full = f"my-batch.{dns_domain('DB', 'S')}"
    both = ["127.70.0.1", "127.70.0.2"]
    assert found["my-batch"] == found[full] == found[f"instances.{full}"] == both
    assert found["my-batch-0"] == ["127.70.0.1"]
    assert "my-batch-1" not in found
    assert found["localhost"] == ["127.0.0.1", "::1"]


def test_ended_instance_is_no_longer_resolved(tmp_path):
    """An instance's name goes when its containers have ended."""
    batch = job("B", "127.70.0.1", "127.70.0.2")
    job_network.update_hosts(tmp_path, [batch], batch, set())
    batch.instances[1].containers[0].status = "DONE"
    job_network.update_hosts(tmp_path, [batch], batch, set())
    assert names_in(tmp_path, batch)["b"] == ["127.70.0.1"]


def test_only_services_with_endpoints_are_known_to_others(tmp_path):
    """A service that declares no endpoint stays unknown; another schema needs the full name."""
    server, quiet, far = (
        job("SERVER", "10.0.0.2"),
        job("QUIET", "10.0.0.3"),
        job("FAR", "10.0.0.4", schema="T"),
    )
    everyone = [server, quiet, far]
    for changed in (quiet, far, server):
        job_network.update_hosts(tmp_path, everyone, changed, {"SERVER"})
    assert names_in(tmp_path, quiet)["server"] == ["10.0.0.2"]
    assert "quiet" not in names_in(tmp_path, server)
    assert "server" not in names_in(tmp_path, far)
    assert names_in(tmp_path, far)[f"server.{dns_domain('DB', 'S')}"] == ["10.0.0.2"]


def test_hosts_file_changes_in_place(tmp_path):
    """The file stays the same one, as a container's mount needs, and shrinks too."""
    path = tmp_path / "hosts"
    write_hosts(path, "127.0.0.1 localhost\n10.0.0.2 a\n")
    inode = path.stat().st_ino
    write_hosts(path, "127.0.0.1 localhost\n")
    assert path.stat().st_ino == inode
    assert path.read_text() == "127.0.0.1 localhost\n"


def test_loopback_addresses_differ_within_and_between_accounts():
    """Addresses are loopback ones, never taken twice, from another range for another account."""
    first = loopback_address("/a", [])
    second = loopback_address("/a", [first])
    other = loopback_address("/b", [])
    assert len({first, second, other}) == 3
    assert all(ipaddress.ip_address(address).is_loopback for address in (first, second, other))


def test_subnet_addresses_leave_out_the_gateway_and_end():
    """A network's addresses are given once each; then the error says so."""
    taken = []
    while len(taken) < 5:
        taken.append(subnet_address("10.9.0.0/29", "10.9.0.1", taken))
    assert "10.9.0.1" not in taken
    with pytest.raises(RunnerError, match="no address is left"):
        subnet_address("10.9.0.0/29", "10.9.0.1", taken)
