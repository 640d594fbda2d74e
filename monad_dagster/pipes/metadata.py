"""The typed metadata of a materialization that ran as a job service, under `spcs/`.

The order is that of the asset page: why it failed comes first, the long specification last.
"""

from dagster import MarkdownMetadataValue, TableMetadataValue

from monad_dagster.pipes.compat import NamespacedMetadataSet


class SpcsMetadataSet(NamespacedMetadataSet):
    """What the launch side knows of one job service.

    Attributes:
        failure_class: Why it failed.
        advice: What to do about it.
        retry: Whether this class of failure is tried again by itself.
        platform_message: Snowflake's message for the container.
        exit_code: Exit code of the container that counts.
        log_tail: Last log lines of a failure.
        instances: Status and exit code of every instance, when there are several.
        warnings: What was noticed before the submission.
        job_name: Fully qualified name.
        query_id: Query id of EXECUTE JOB SERVICE.
        status: Last status.
        compute_pool: Pool it ran on.
        instance_family: Family of the pool's nodes.
        image_ref: Image as the specification names it.
        image_digest: Digest that was asked for.
        image_digest_observed: Digest that ran.
        spec_sha256: Hash of the specification.
        request_sha256: Hash of what was asked for, the same for every attempt at it.
        output_path: Stage directory of the output.
        run_directory: Stage directory of context and messages.
        log_path: Stage path of the archived log, beside the output.
        log_complete: Whether the archived log holds every line.
        attempt: Counts from 1 within a chain of retries.
        reattached: Whether this run found the job service instead of starting it.
        resumed: Whether the attempt continued an earlier one's output.
        resumed_from: The manifest of the checkpoint that it continued.
        replicas: Number of instances.
        queue_seconds: From submission to running.
        run_seconds: From running to the end.
        restart_count: Restarts of the main container.
        credits_estimated: Node time at the configured rate.
        num_messages: Messages received.
        spec: The specification as YAML, without launch variables.
    """

    failure_class: str | None = None
    advice: str | None = None
    retry: bool | None = None
    platform_message: str | None = None
    exit_code: int | None = None
    log_tail: MarkdownMetadataValue | None = None
    instances: TableMetadataValue | None = None
    warnings: str | None = None
    job_name: str | None = None
    query_id: str | None = None
    status: str | None = None
    compute_pool: str | None = None
    instance_family: str | None = None
    image_ref: str | None = None
    image_digest: str | None = None
    image_digest_observed: str | None = None
    spec_sha256: str | None = None
    request_sha256: str | None = None
    output_path: str | None = None
    run_directory: str | None = None
    log_path: str | None = None
    log_complete: bool | None = None
    attempt: int | None = None
    reattached: bool | None = None
    resumed: bool | None = None
    resumed_from: str | None = None
    replicas: int | None = None
    queue_seconds: float | None = None
    run_seconds: float | None = None
    restart_count: int | None = None
    credits_estimated: float | None = None
    num_messages: int | None = None
    spec: MarkdownMetadataValue | None = None

    @classmethod
    def namespace(cls) -> str:
        """The prefix of every key."""
        return "spcs"
