"""The `image` asset: the job image in the account's image repository.

Its data version is the manifest digest of what was pushed; its code version is the digest of the
build context. The tag is derived from the build context too, so a tag never moves to another image.
"""

import time
from typing import TYPE_CHECKING

import dagster as dg

from monad_dagster.assets.image_build import BuildContext, read_build_context, write_layout
from monad_dagster.assets.keys import GROUP_ENVIRONMENT, IMAGE
from monad_dagster.errors import ImageError, problem
from monad_dagster.pipes.client import PipesSPCSClient, query_tag
from monad_dagster.spcs.identifiers import QualifiedName
from monad_dagster.spcs.image_repository import ImageRepository
from monad_dagster.spcs.scratch import scratch_directory

if TYPE_CHECKING:
    from monad_dagster.settings import Settings

_OPEN_TARGET = "open"
_LICENSED_TARGET = "licensed"


def image_context(settings: "Settings") -> BuildContext:
    """Return the build context of these settings; the same files built otherwise are another."""
    recipe = f"docker {settings.python_base_image or ''}" if needs_engine(settings) else ""
    return read_build_context(settings.container_dir, base_image=settings.base_image, recipe=recipe)


def image_tag(settings: "Settings", context: BuildContext) -> str:
    """Return the tag an image is pushed under."""
    return settings.image_tag or f"ctx-{context.digest[:16]}"


def build_image_asset(settings: "Settings") -> dg.AssetsDefinition:
    """Return the asset that builds and pushes the job image."""
    code_version = image_context(settings).digest[:16]

    @dg.asset(
        key=IMAGE,
        group_name=GROUP_ENVIRONMENT,
        kinds={"docker"},
        code_version=code_version,
        description="The job image: engine and scripts, never scenarios or configs.",
    )
    def image(context: dg.AssetExecutionContext, spcs: PipesSPCSClient) -> dg.MaterializeResult:
        started = time.time()
        build_context = image_context(settings)
        tag = image_tag(settings, build_context)
        with spcs.session(query_tag=query_tag(context)) as session:
            repository = ImageRepository(
                session,
                QualifiedName(settings.database, settings.schema, settings.image_repository),
            )
            digest, builder = push_image(settings, repository, build_context, tag)
            registered = repository.digest_of(settings.image_name, tag)
        if registered != digest:
            raise ImageError(
                problem(
                    f"Image {settings.image_name}:{tag} is not what was pushed",
                    f"pushed {digest}, SHOW IMAGES says {registered}",
                    "Materialize image again",
                )
            )
        context.log.info(f"Pushed {settings.image_name}:{tag} with digest {digest} ({builder})")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest),
            metadata={
                "image_path": repository.image_path(settings.image_name, tag),
                "digest": digest,
                "tag": tag,
                "builder": builder,
                "build_context_sha256": build_context.digest,
                "num_files": len(build_context.files),
                "duration_seconds": time.time() - started,
            },
        )

    return image


def push_image(
    settings: "Settings", repository: ImageRepository, context: BuildContext, tag: str
) -> tuple[str, str]:
    """Build and push with the chosen builder; return the digest and the builder's name."""
    builder = choose_builder(settings)
    if builder == "docker":
        reference = _docker_build(settings, tag)
        digest = repository.push_from_engine(reference, image=settings.image_name, tag=tag)
        return digest, builder
    with scratch_directory("image") as scratch:
        write_layout(context, scratch)
        return repository.push_layout(scratch, image=settings.image_name, tag=tag), builder


def choose_builder(settings: "Settings") -> str:
    """Decide between the Docker Engine and the built-in OCI builder.

    Raises:
        ImageError: An engine is needed (a real account or a base image) and none answers.
    """
    if not needs_engine(settings):
        return "oci"
    if settings.image_builder == "auto" and not _docker_answers():
        raise ImageError(
            problem(
                "The job image cannot be built",
                "no Docker Engine answers, and a real account, a base image or a forced runner "
                "needs one",
                "Start Docker, or set DOCKER_HOST to its socket",
                "docs/licensed-image.md",
            )
        )
    return "docker"


def needs_engine(settings: "Settings") -> bool:
    """Tell whether the image is built by a container engine.

    On the local account the process runner supplies Python and packages, so a layer is enough
    unless a base image is given or containers are to run in an engine.
    """
    if settings.image_builder != "auto":
        return settings.image_builder == "docker"
    has_base = bool(settings.base_image or settings.python_base_image)
    return settings.deployment != "local" or has_base or settings.runner.startswith("docker")


def _docker_answers() -> bool:
    import docker
    from docker.errors import DockerException

    try:
        return bool(docker.from_env(timeout=5).ping())
    except DockerException:
        return False


def _docker_build(settings: "Settings", tag: str) -> str:
    """Build `container/Dockerfile` for linux/amd64 and return the local reference."""
    import docker
    from docker.errors import BuildError, DockerException

    reference = f"{settings.image_name}:{tag}"
    base = settings.base_image or settings.python_base_image
    arguments = {"BASE_IMAGE": base} if base else {}
    try:
        docker.from_env().images.build(
            path=str(settings.container_dir),
            tag=reference,
            platform="linux/amd64",
            buildargs=arguments,
            target=_LICENSED_TARGET if settings.base_image else _OPEN_TARGET,
            rm=True,
        )
    except (BuildError, DockerException) as error:
        raise ImageError(
            problem(
                f"Image {reference} could not be built",
                f"{str(error)[:500]}{_last_words(error)}",
                f"Build it by hand: docker build {settings.container_dir}",
            )
        ) from error
    return reference


def _last_words(error: Exception) -> str:
    """Return the end of a failed build's output, where the cause is."""
    lines = [str(part.get("stream", "")) for part in getattr(error, "build_log", ())]
    text = "".join(lines).strip()
    return f' Its last output: "{text[-600:]}"' if text else ""
