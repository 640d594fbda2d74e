"""How a node gets a job service's image: by the registry's front door, as the owner role."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from monad_dagster.local.images.system_images import PROBE_PATH, ensure_probe_image
from monad_dagster.local.jobs.job_submission import split_image
from monad_dagster.local.runners.base import ImagePull

if TYPE_CHECKING:
    from monad_dagster.local.account import Account

NODE_USER = "SYSTEM"


@contextmanager
def registry_login(account: "Account", role: str) -> Iterator[tuple[str, str]]:
    """Open a session of a role and yield its registry login: user and password."""
    session = account.create_session(NODE_USER, role)
    try:
        token = account.tokens.issue("session", session.id, NODE_USER)
        yield "0sessiontoken", json.dumps({"token": token, "expires_in": 3600})
    finally:
        account.end_session(session.id)


def registry_path(image: str, database: str, schema: str) -> str:
    """Return an image's path in the registry, without its tag."""
    repository, name, _ = split_image(image, database, schema)
    return "/".join([*(part.lower() for part in repository), name])


def probe_pull(account: "Account") -> tuple[str, ImagePull]:
    """Return the digest of the runners' probe image and how to pull it."""
    digest = ensure_probe_image(account.extensions["images"])
    return digest, ImagePull(PROBE_PATH, lambda: registry_login(account, "PUBLIC"))
