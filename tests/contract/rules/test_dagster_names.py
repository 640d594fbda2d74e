"""The private names of Dagster that the client stands on."""

import inspect

import dagster as dg

from monad_dagster.pipes import compat
from monad_dagster.pipes.client import PipesSPCSClient
from monad_dagster.pipes.metadata import SpcsMetadataSet


def test_launch_handles_have_the_arguments_the_ledger_gives():
    """A renamed argument of Dagster's launch record fails here."""
    parameters = inspect.signature(compat.record_external_launch).parameters
    assert {"client_name", "external_run_id", "extras"} <= set(parameters)


def test_a_run_without_events_has_no_handle_and_no_successful_step():
    """Both look-ups answer for a run that nothing is known of."""
    with dg.instance_for_test() as instance:
        run = "00000000-0000-0000-0000-000000000000"
        assert compat.latest_handle_in_run(instance, run, "step", "client") is None
        assert not compat.step_succeeded(instance, run, "step")


def test_the_client_is_a_pipes_client_with_keyword_only_arguments():
    """The base class's contract holds."""
    parameters = inspect.signature(PipesSPCSClient.run).parameters.values()
    kinds = {p.kind for p in parameters if p.name != "self"}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}
    assert issubclass(PipesSPCSClient, dg.PipesClient)


def test_metadata_leaves_out_what_is_not_known():
    """Only known facts become entries, each under spcs/."""
    assert dict(SpcsMetadataSet(job_name="J", attempt=2)) == {
        "spcs/job_name": "J",
        "spcs/attempt": 2,
    }
