"""`JobServiceComponent`: one asset that runs any image as a Snowflake job service.

In a `defs.yaml`:

    type: monad_dagster.components.JobServiceComponent
    attributes:
      asset: { key: nightly_features, deps: [raw_events] }
      image: /monad_db/data_schema/image_repository/features:1.2
      command: [python]
      args: [/app/build.py, --out, "{output_path}"]
      output_path: nightly_features

The resource `spcs`, a `PipesSPCSClient`, says where it runs.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg
from pydantic import Field

from monad_dagster.pipes.client import PipesSPCSClient
from monad_dagster.pipes.launch import LaunchOptions


class JobServiceComponent(dg.Component, dg.Model, dg.Resolvable):
    """An asset whose materialization is a job service."""

    asset: dg.ResolvedAssetSpec = Field(description="Key, deps, group and other asset attributes.")
    image: str = Field(description="Image path with its tag, as a specification names it.")
    command: list[str] = Field(
        default_factory=list, description="Entry point; the image's if empty."
    )
    args: list[str] = Field(
        default_factory=list, description="Arguments; {output_path} is the attempt's directory."
    )
    env: dict[str, str] = Field(default_factory=dict, description="Environment variables.")
    output_path: str | None = Field(
        default=None, description="Stage directory in which each attempt gets its own."
    )
    compute_pool: str | None = Field(default=None, description="Pool; the resource's if not given.")
    replicas: int | None = Field(default=None, ge=1, description="Number of identical instances.")
    gpus: int | None = Field(default=None, ge=0, description="GPUs of the container.")
    memory: str | None = Field(default=None, description="Memory of the container, such as 8Gi.")
    require_materialization: bool = Field(
        default=True,
        description="Whether the container must report the asset; false for an image that does "
        "not speak Dagster Pipes.",
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        """Return the asset."""

        @dg.multi_asset(name=self._op_name(), specs=[self.asset])
        def job_service_asset(
            context: dg.AssetExecutionContext, spcs: PipesSPCSClient
        ) -> Iterator[Any]:
            invocation = spcs.run(
                context=context,
                image=self.image,
                command=self.command,
                args=self.args,
                env=self.env,
                output_path=self.output_path,
                options=self._options(),
            )
            yield from invocation.get_results(
                implicit_materializations=not self.require_materialization
            )

        return dg.Definitions(assets=[job_service_asset])

    def _op_name(self) -> str:
        return "__".join(self.asset.key.path)

    def _options(self) -> LaunchOptions:
        return LaunchOptions(
            compute_pool=self.compute_pool,
            replicas=self.replicas,
            gpus=self.gpus,
            memory=self.memory,
            resume_args=(),
            require_materialization=self.require_materialization,
            speaks_pipes=self.require_materialization,
        )
