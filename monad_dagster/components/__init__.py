"""Dagster components: job-service assets in YAML, without Python."""

from monad_dagster.components.job_service import JobServiceComponent

__all__ = ["JobServiceComponent"]
