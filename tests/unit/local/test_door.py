"""The door from a network of containers to the account."""

import socket
import threading

import pytest

from monad_dagster.local.runners.base import RunnerError
from monad_dagster.local.runners.docker_network import Door, Network


@pytest.fixture
def account():
    """A server that answers with what it was sent, in capitals, once the sender is done."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                data = b""
                while part := connection.recv(65536):
                    data += part
                connection.sendall(data.upper())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(timeout=5)


def ask(address, data):
    """Send data to the door and return the whole answer."""
    with socket.create_connection(address, timeout=10) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        except OSError:  # closed at once
            return b""
        return answer


def open_door(subnet, account):
    """Open a door on a second loopback address, as the gateway of a network."""
    door = Door(Network("n", subnet, "127.0.0.2"), account)
    door.open()
    return door, ("127.0.0.2", account[1])


def test_containers_of_the_network_reach_the_account(account):
    """Bytes pass both ways, more than fits into a buffer, and the end of each side is kept."""
    door, address = open_door("127.0.0.0/8", account)
    try:
        data = b"abc" * 1_000_000
        assert ask(address, data) == data.upper()
        assert door.num_refused == 0
    finally:
        door.close()


def test_strangers_are_refused(account):
    """A peer from outside of the network gets nothing."""
    door, address = open_door("10.254.0.0/24", account)
    try:
        assert ask(address, b"abc") == b""
        assert door.num_refused == 1
    finally:
        door.close()


def test_gateway_that_is_not_here_is_an_error(account):
    """The door says so when the network lies on another machine or in another namespace."""
    door = Door(Network("n", "192.0.2.0/24", "203.0.113.7"), account)
    with pytest.raises(RunnerError, match=r"gateway 203\.0\.113\.7 is not reachable"):
        door.open()
