"""Image repositories: where they are, what they hold, and how an image gets there.

The registry accepts the session itself as a login: user `0sessiontoken`, password a JSON text with
a token that the session asked for. An image in OCI layout is pushed over HTTP; an image in a
Docker Engine is pushed by the engine. Follows "Working with an image registry and repository".
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from monad_dagster.errors import ImageError, problem
from monad_dagster.spcs import sql
from monad_dagster.spcs.connection import Session
from monad_dagster.spcs.identifiers import QualifiedName

REGISTRY_USER = "0sessiontoken"
LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
REQUIRED_PLATFORM = "linux/amd64"  # the only one job services run
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
REQUEST_SECONDS = 600


@dataclass(frozen=True)
class RegistryImage:
    """One row of SHOW IMAGES."""

    name: str
    tags: tuple[str, ...]
    digest: str
    image_path: str


@dataclass(frozen=True)
class RegistryCredentials:
    """A login for the registry; never printed.

    Attributes:
        token: The session token.
        expires_in: Seconds it stays valid.
    """

    token: str
    expires_in: int

    @property
    def password(self) -> str:
        """The password that goes with the user `0sessiontoken`."""
        return json.dumps({"token": self.token, "expires_in": self.expires_in})

    def __repr__(self) -> str:
        return f"RegistryCredentials(expires_in={self.expires_in})"


class ImageRepository:
    """One image repository of an account."""

    def __init__(self, session: Session, name: QualifiedName) -> None:
        """Name the repository; nothing is sent yet."""
        self._session = session
        self.name = name

    def url(self) -> str:
        """Return the repository's URL without a scheme: host, then path in lower case.

        Raises:
            ImageError: The repository does not exist or the role cannot see it.
        """
        for row in self._session.execute(sql.show_image_repositories(self.name)).rows:
            if str(row.get("name")) == self.name.name:
                return str(row["repository_url"]).removeprefix("https://").removeprefix("http://")
        raise ImageError(
            problem(
                f"Image repository {self.name} does not exist or the role may not see it",
                "The account does not list it",
                "Create it and grant READ and WRITE: monad-dagster setup",
                "More: monad-dagster doctor",
            )
        )

    def images(self) -> list[RegistryImage]:
        """List what the repository holds."""
        rows = self._session.execute(sql.show_images(self.name)).rows
        return [
            RegistryImage(
                name=str(row.get("image_name")),
                tags=_tags(row.get("tags")),
                digest=str(row.get("digest")),
                image_path=str(row.get("image_path")),
            )
            for row in rows
        ]

    def digest_of(self, image: str, tag: str) -> str | None:
        """Return the digest *tag* points at now, None when there is no such tag."""
        for found in self.images():
            if found.name == image and tag in found.tags:
                return found.digest
        return None

    def image_path(self, image: str, tag: str) -> str:
        """Return the path by which a specification names the image."""
        return f"{self.name.registry_path()}/{image}:{tag}"

    def credentials(self) -> RegistryCredentials:
        """Ask the session for a registry login.

        Raises:
            ImageError: The account gave no token.
        """
        self._session.execute(sql.set_json_results())
        answer = self._session.call(lambda c: c._rest._token_request("ISSUE"))
        data = (answer or {}).get("data") or {}
        if not data.get("sessionToken"):
            raise ImageError(
                problem(
                    "The account gave no token for the image registry",
                    str((answer or {}).get("message", "The answer held no message")),
                    "Log in again; a programmatic access token with docker login also works",
                )
            )
        return RegistryCredentials(data["sessionToken"], int(data.get("validityInSecondsST", 3600)))

    def push_layout(self, layout: Path, *, image: str, tag: str) -> str:
        """Push an image in OCI layout over HTTP and return its manifest digest.

        Blobs the registry already has are not sent again.

        Args:
            layout: Directory with `index.json` and `blobs/sha256`.
            image: Name of the image in the repository.
            tag: Tag to give it.

        Raises:
            ImageError: The layout is not readable or the registry refused a part.
        """
        url = self.url()
        client = _RegistryClient(url, image, self.credentials())
        descriptor, manifest = read_layout(layout)
        for blob in (manifest["config"], *manifest["layers"]):
            client.push_blob(blob["digest"], blob_path(layout, blob["digest"]))
        media_type = str(manifest.get("mediaType", OCI_MANIFEST))
        body = blob_path(layout, descriptor["digest"]).read_bytes()
        return client.push_manifest(tag, body, media_type, descriptor["digest"])

    def push_from_engine(self, local_reference: str, *, image: str, tag: str) -> str:
        """Push an image of the Docker Engine and return its manifest digest.

        Raises:
            ImageError: The engine or the registry refused.
        """
        import docker
        from docker.errors import DockerException

        remote = f"{self.url()}/{image}"
        login = {"username": REGISTRY_USER, "password": self.credentials().password}
        try:
            client = docker.from_env()
            found = client.images.get(local_reference)
            platform = f"{found.attrs.get('Os')}/{found.attrs.get('Architecture')}"
            if platform != REQUIRED_PLATFORM:
                raise _push_error(f"{remote}:{tag}", f"It was built for {platform}")
            found.tag(remote, tag=tag)
            lines = client.images.push(remote, tag=tag, auth_config=login, stream=True, decode=True)
            return _pushed_digest(lines, f"{remote}:{tag}")
        except DockerException as error:
            raise _push_error(f"{remote}:{tag}", str(error)) from error


def read_layout(layout: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the descriptor and the manifest of the only image of an OCI layout."""
    try:
        index = json.loads((layout / "index.json").read_text(encoding="utf-8"))
        (descriptor,) = index["manifests"]
        manifest = json.loads(blob_path(layout, descriptor["digest"]).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError) as error:
        raise ImageError(
            problem(f"Image layout {layout} cannot be read", str(error), "Build the image again")
        ) from error
    return descriptor, manifest


def blob_path(layout: Path, digest: str) -> Path:
    """Return where a layout keeps the blob of *digest*."""
    algorithm, _, value = digest.partition(":")
    return layout / "blobs" / algorithm / value


class _RegistryClient:
    """The part of the OCI distribution protocol that a push needs."""

    def __init__(self, repository_url: str, image: str, credentials: RegistryCredentials) -> None:
        import requests

        host, _, path = repository_url.partition("/")
        scheme = "http" if urlsplit(f"//{host}").hostname in LOOPBACK_HOSTS else "https"
        self._base = f"{scheme}://{host}"
        self._name = f"{path}/{image}"
        self._reference = f"{repository_url}/{image}"
        self._http = requests.Session()
        login = self._send("GET", f"{self._base}/login", auth=(REGISTRY_USER, credentials.password))
        token = login.json().get("token", "")
        self._http.headers["Authorization"] = f"Bearer {token}"

    def push_blob(self, digest: str, file: Path) -> None:
        """Send one blob unless the registry has it."""
        place = f"{self._base}/v2/{self._name}/blobs"
        if self._send("HEAD", f"{place}/{digest}", missing_ok=True).status_code == 200:
            return
        started = self._send("POST", f"{place}/uploads/")
        location = urljoin(f"{self._base}/", started.headers["Location"])
        separator = "&" if "?" in location else "?"
        with file.open("rb") as stream:
            self._send(
                "PUT",
                f"{location}{separator}digest={digest}",
                data=stream,
                headers={"Content-Type": "application/octet-stream"},
            )

    def push_manifest(self, tag: str, body: bytes, media_type: str, digest: str) -> str:
        """Send the manifest under *tag*; the registry's digest must be ours."""
        answer = self._send(
            "PUT",
            f"{self._base}/v2/{self._name}/manifests/{tag}",
            data=body,
            headers={"Content-Type": media_type},
        )
        stored = answer.headers.get("Docker-Content-Digest", digest)
        if stored != digest:
            raise _push_error(
                f"{self._reference}:{tag}", f"The registry says {stored}, layout says {digest}"
            )
        return digest

    def _send(self, method: str, url: str, *, missing_ok: bool = False, **arguments: Any) -> Any:
        import requests

        try:
            answer = self._http.request(method, url, timeout=REQUEST_SECONDS, **arguments)
        except requests.RequestException as error:
            raise _push_error(self._reference, str(error)) from error
        if answer.ok or (missing_ok and answer.status_code == 404):
            return answer
        raise _push_error(
            self._reference,
            f"The request {method} answered {answer.status_code}: {answer.text[:200]}",
        )


def _pushed_digest(lines: Iterator[dict[str, Any]], reference: str) -> str:
    digest = ""
    for line in lines:
        if "error" in line:
            raise _push_error(reference, str(line["error"]))
        digest = (line.get("aux") or {}).get("Digest", digest)
    if not digest:
        raise _push_error(reference, "The engine reported no digest")
    return digest


def _push_error(reference: str, observed: str) -> ImageError:
    return ImageError(
        problem(
            f"Image {reference} was not pushed",
            observed,
            "Check that the role may WRITE to the repository and that the image is linux/amd64",
            "More: monad-dagster doctor",
        )
    )


def _tags(value: object) -> tuple[str, ...]:
    text = str(value or "")
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = text.split(",")
    items = parsed if isinstance(parsed, list) else [parsed]
    return tuple(str(item).strip() for item in items if str(item).strip())
