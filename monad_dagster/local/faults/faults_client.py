"""Sets faults of a running local account through its control route; standard library only."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from monad_dagster.errors import LocalAccountError, problem

_PATH = "/monad/faults"


class FaultControl:
    """The faults of one running account.

    Args:
        host: Where the account listens.
        port: Its port.
        token: The content of DIR/control.token.
    """

    def __init__(self, host: str, port: int, token: str) -> None:
        self._address = (host, port)
        self._token = token

    def add(self, kind: str, **fields: Any) -> int:
        """Set a fault and return its number.

        Args:
            kind: Its name, such as `lost-answer`.
            fields: Selectors, count, probability, seed, delay_seconds, persist, and its options.

        Raises:
            LocalAccountError: It cannot be set so, or the account does not answer.
        """
        return self.describe_added(kind, **fields)["id"]

    def describe_added(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Set a fault and return its number, seed and effect."""
        return self._request("POST", _PATH, {"kind": kind, **fields})

    def current(self) -> list[dict[str, Any]]:
        """Return the faults that are set, with how often each was a hit."""
        return self._request("GET", _PATH)["faults"]

    def clear(self, fault_id: int | None = None) -> int:
        """Remove one fault, or all; return how many there were."""
        path = _PATH if fault_id is None else f"{_PATH}/{fault_id}"
        return self._request("DELETE", path)["cleared"]

    @contextmanager
    def active(self, kind: str, **fields: Any) -> Iterator[int]:
        """Set a fault for the length of a block."""
        fault_id = self.add(kind, **fields)
        try:
            yield fault_id
        finally:
            self.clear(fault_id)

    def _request(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(*self._address, timeout=30)
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise LocalAccountError(
                problem(
                    f"The faults of the local account at {self._address[0]}:{self._address[1]} "
                    "could not be reached",
                    str(error),
                    "Look whether it runs with `monad-dagster local status`",
                )
            ) from error
        finally:
            connection.close()
        if response.status != 200:
            raise LocalAccountError(
                problem(
                    "The fault was not set" if method == "POST" else "The faults were not changed",
                    str(answer.get("error", response.status)),
                    "List the kinds with `monad-dagster local fault add --help`",
                )
            )
        return answer
