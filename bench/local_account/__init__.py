"""Figures of the local account, beside its peers in the same run."""

from bench.local_account import arrow, job_services, mounts, statements, transfer

PARTS = {
    "statements": statements.trivial_query,
    "arrow": arrow.ten_million_rows,
    "sessions": statements.many_sessions,
    "job_services": job_services.fifty_at_once,
    "transfer": transfer.one_gibibyte,
    "stage_mount": mounts.one_gibibyte,
}
