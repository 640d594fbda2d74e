"""Addresses of service instances and the names by which containers find them.

Where containers share the host's network each instance has a loopback address of its own, so
that two instances may listen on the same port. Names are written into a hosts file that is
mounted over /etc/hosts: the service's name, its full DNS name and `instances.<full name>`, each
with one line for each instance that runs, so a resolver returns all of them.
"""

import hashlib
import ipaddress
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from monad_dagster.local.runners.base import RunnerError

LOOPBACK_HOSTS = 2**14  # addresses of one account


@dataclass(frozen=True)
class Peer:
    """A running instance of a service, as another container sees it.

    Attributes:
        address: Its address.
        names: What resolves to it.
    """

    address: str
    names: tuple[str, ...]


def service_names(service: str, domain: str, *, same_schema: bool) -> tuple[str, ...]:
    """Return the documented names that lead to a service's instances.

    Args:
        service: The service's name as a DNS label.
        domain: Its schema's DNS domain.
        same_schema: Whether the asking container is in the same schema; there the bare name works.
    """
    full = f"{service}.{domain}"
    return (*((service,) if same_schema else ()), full, f"instances.{full}")


def hosts_text(own_address: str, hostname: str, peers: Iterable[Peer]) -> str:
    """Return the text of a container's /etc/hosts."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"]
    lines.append(f"{own_address}\t{hostname}")
    lines += [f"{peer.address}\t{' '.join(peer.names)}" for peer in peers]
    return "\n".join(lines) + "\n"


def write_hosts(path: Path, text: str) -> None:
    """Write a hosts file in place: a container's mount follows the file, not its name."""
    data = text.encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def loopback_address(account: str, taken: Collection[str]) -> str:
    """Return a free loopback address; accounts of one host begin in different ranges.

    Args:
        account: What tells the account from others, its directory.
        taken: Addresses that instances hold.

    Raises:
        RunnerError: All are taken.
    """
    return _first_free(_loopback_range(account), taken)


def subnet_address(subnet: str, gateway: str, taken: Collection[str]) -> str:
    """Return a free address of a network.

    Raises:
        RunnerError: All are taken.
    """
    hosts = (str(host) for host in ipaddress.ip_network(subnet).hosts())
    return _first_free((host for host in hosts if host != gateway), taken)


def _loopback_range(account: str) -> Iterator[str]:
    digest = hashlib.sha256(account.encode()).digest()
    # 127.64.0.0 to 127.191.255.255: clear of 127.0.0.1 and of 127.0.0.53, systemd's resolver.
    base = int(ipaddress.ip_address("127.64.0.0"))
    block = int.from_bytes(digest[:4], "big") % (2**23 // LOOPBACK_HOSTS)
    for number in range(1, LOOPBACK_HOSTS - 1):
        yield str(ipaddress.ip_address(base + block * LOOPBACK_HOSTS + number))


def _first_free(addresses: Iterable[str], taken: Collection[str]) -> str:
    held = set(taken)
    for address in addresses:
        if address not in held:
            return address
    raise RunnerError("no address is left for one more instance")
