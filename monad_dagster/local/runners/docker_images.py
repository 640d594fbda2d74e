"""Images in the engine: pulled by digest from the account's registry, removed with the account."""

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from monad_dagster.local.runners.base import ImagePull, ImagePullError
from monad_dagster.local.runners.supervise import write_json

if TYPE_CHECKING:
    from docker import APIClient

PLATFORM = "linux/amd64"  # the only one that job services run


class EngineImages:
    """The images that this account brought into the engine.

    Args:
        path: Where their references are written down.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def pull(self, client: "APIClient", registry: str, pull: ImagePull, digest: str) -> str:
        """Pull an image by digest and return the reference that names exactly it.

        The registry is asked each time, as a node does, so a dropped image or a revoked
        privilege is noticed; the engine fetches only what it lacks.

        Raises:
            ImagePullError: The registry or the engine refuses.
        """
        from docker.errors import APIError, DockerException
        from requests import RequestException

        repository = f"{registry}/{pull.repository}"
        reference = f"{repository}@{digest}"
        with self._lock:
            was_there = _exists(client, reference)
            try:
                with pull.login() as (user, password):
                    lines = client.pull(
                        repository, tag=digest, stream=True, decode=True, platform=PLATFORM,
                        auth_config={"username": user, "password": password},
                    )  # fmt: skip
                    for line in lines:
                        if "error" in line:
                            raise ImagePullError(f"{line['error']} ({reference})")
            except (APIError, DockerException, RequestException) as error:
                text = getattr(error, "explanation", None) or str(error)
                raise ImagePullError(f"{text} ({reference})") from error
            if not was_there:
                self._remember(reference)
        return reference

    def remove(self, client: "APIClient") -> int:
        """Remove the images that this account pulled and nobody uses; return how many."""
        from docker.errors import APIError

        removed = 0
        for reference in self._known():
            try:
                client.remove_image(reference)
                removed += 1
            except APIError:  # in use, or gone already
                continue
        self.path.unlink(missing_ok=True)
        return removed

    def _remember(self, reference: str) -> None:
        known = self._known()
        if reference not in known:
            write_json(self.path, {"images": [*known, reference]})

    def _known(self) -> list[str]:
        try:
            return list(json.loads(self.path.read_text())["images"])
        except (OSError, ValueError, KeyError):
            return []


def _exists(client: "APIClient", reference: str) -> bool:
    from docker.errors import APIError

    try:
        client.inspect_image(reference)
    except APIError:
        return False
    return True
