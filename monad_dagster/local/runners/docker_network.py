"""The network of an account's containers in an engine, and the door from it to the account.

The network is internal: containers reach each other and the account, nothing else, as job
services without an external access integration do. The account listens on loopback only; the
door listens on the network's gateway address, takes connections from that network's containers
only, and hands them on.
"""

import asyncio
import contextlib
import ipaddress
import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from monad_dagster.local.runners.base import RunnerError

if TYPE_CHECKING:
    from docker import APIClient

logger = logging.getLogger("monad_dagster.local")

CHUNK_BYTES = 256 * 1024
START_SECONDS = 5


@dataclass(frozen=True)
class Network:
    """A network of the engine.

    Attributes:
        name: Its name.
        subnet: Its addresses.
        gateway: The host's address in it.
    """

    name: str
    subnet: str
    gateway: str


def ensure_network(
    client: "APIClient", name: str, labels: dict[str, str], *, internal: bool
) -> Network:
    """Return the network of that name, made now or by an earlier account process.

    The engine picks a free subnet; the network is then made again with that subnet spelled out,
    because only then may a container ask for an address.

    Raises:
        RunnerError: The engine cannot make networks.
    """
    from docker.errors import APIError
    from docker.types import IPAMConfig, IPAMPool

    try:
        found = _network(client, name)
        if found is not None:
            return found
        client.create_network(name, driver="bridge", internal=internal, labels=labels)
        chosen = _network(client, name)
        client.remove_network(name)
        if chosen is None:
            raise RunnerError(f"network {name} has no IPv4 subnet")
        pool = IPAMPool(subnet=chosen.subnet, gateway=chosen.gateway)
        config = IPAMConfig(pool_configs=[pool])
        client.create_network(name, driver="bridge", internal=internal, labels=labels, ipam=config)
    except APIError as error:
        raise RunnerError(f"no network: {error.explanation or error}") from error
    return chosen


def _network(client: "APIClient", name: str) -> Network | None:
    for found in client.networks(names=[name]):
        if found["Name"] != name:  # the filter matches parts of names
            continue
        for config in found["IPAM"].get("Config") or []:
            subnet = ipaddress.ip_network(config["Subnet"])
            if subnet.version == 4:
                gateway = config.get("Gateway") or str(next(subnet.hosts()))
                return Network(name, str(subnet), gateway.partition("/")[0])
    return None


class Door:
    """Hands connections from a network's containers to the account.

    Args:
        network: Who may come in.
        target: The account's address.
    """

    def __init__(self, network: Network, target: tuple[str, int]) -> None:
        self.network = network
        self.target = target
        self.num_refused = 0
        self._subnet = ipaddress.ip_network(network.subnet)
        self._loop = asyncio.new_event_loop()
        self._failure: OSError | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)

    def open(self) -> None:
        """Listen on the gateway's address, at the account's port.

        Raises:
            RunnerError: The gateway is not an address of this host.
        """
        self._thread.start()
        if not self._ready.wait(START_SECONDS) or self._failure is not None:
            raise RunnerError(
                f"the network's gateway {self.network.gateway} is not reachable from the account"
                f" ({self._failure or 'no answer'})"
            )

    def close(self) -> None:
        """Stop listening."""
        if self._loop.is_running():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            listening = asyncio.start_server(
                self._serve, self.network.gateway, self.target[1], backlog=256
            )
            self._loop.run_until_complete(listening)
        except OSError as error:
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if peer is None or ipaddress.ip_address(peer[0]) not in self._subnet:
            self.num_refused += 1
            writer.close()
            return
        try:
            account_reader, account_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        try:
            await asyncio.gather(_pump(reader, account_writer), _pump(account_reader, writer))
        finally:
            account_writer.close()
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy until the sender is done, then say so to the receiver."""
    try:
        while data := await reader.read(CHUNK_BYTES):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except OSError:
        writer.close()
    else:
        with contextlib.suppress(OSError):
            await writer.drain()


def remove_networks(client: Any, label: str) -> None:
    """Remove the networks with a label that no container uses any more."""
    from docker.errors import APIError

    for found in client.networks(filters={"label": label}):
        with contextlib.suppress(APIError):
            client.remove_network(found["Id"])
