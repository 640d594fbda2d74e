"""User code is never paid for again: not by a retry policy, run retries or automation."""

import dagster as dg
import pytest
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import filter_runs_to_should_retry

from tests.contract.pipes.conftest import launched_by, toy_asset

AUTOMATION = {"dagster/from_automation_condition": "true"}
RUN_RETRIES = {"run_retries": {"enabled": True, "max_retries": 3}}


def materialize(asset, client, instance, **arguments):
    """Materialize one asset in this process."""
    return dg.materialize(
        [asset], resources={"client": client}, instance=instance, raise_on_error=False, **arguments
    )


def test_a_retry_policy_does_not_repeat_user_code(client, instance, services):
    """An asset with a policy of three retries launches one job service when its script fails."""
    asset = toy_asset("--behavior", "exit", retry_policy=dg.RetryPolicy(max_retries=3))
    result = materialize(asset, client, instance)
    assert not result.success
    assert len(launched_by(services, result.run_id)) == 1


@pytest.mark.parametrize(("behavior", "retried"), [("exit", False), ("lose-node", True)])
def test_run_retries_repeat_failures_of_the_platform_only(make_client, behavior, retried):
    """Dagster's own filter for its daemon takes the run of a lost node and no other."""
    once = make_client(max_infrastructure_retries=0)
    with dg.instance_for_test(overrides=RUN_RETRIES) as instance:
        result = materialize(toy_asset("--behavior", behavior), once, instance)
        run = instance.get_run_by_id(result.run_id)
        assert [r.run_id for r in filter_runs_to_should_retry([run], instance)] == (
            [run.run_id] if retried else []
        )


def test_automation_that_repeats_a_failed_asset_pays_nothing(client, instance, services):
    """A condition that stays true after a failure gets a run, and the run launches nothing."""
    asset = toy_asset("--behavior", "exit", automation_condition=dg.AutomationCondition.missing())
    first = materialize(asset, client, instance, tags=AUTOMATION)
    assert len(launched_by(services, first.run_id)) == 1
    # The condition is what the client protects from: it is true at every tick.
    definitions = dg.Definitions(assets=[asset], resources={"client": client})
    tick = dg.evaluate_automation_conditions(definitions, instance)
    assert tick.total_requested == 1
    second = materialize(asset, client, instance, tags=AUTOMATION)
    assert not second.success
    assert launched_by(services, second.run_id) == []
    (event,) = [e for e in second.all_events if e.is_step_failure]
    assert "nothing has changed since" in event.step_failure_data.user_failure_data.description


def test_a_change_or_a_person_may_try_again(client, instance, services):
    """Other arguments under automation, and the same ones by hand, are launched."""
    first = materialize(toy_asset("--behavior", "exit"), client, instance, tags=AUTOMATION)
    by_hand = materialize(toy_asset("--behavior", "exit"), client, instance)
    changed = materialize(toy_asset(), client, instance, tags=AUTOMATION)
    assert [len(launched_by(services, r.run_id)) for r in (first, by_hand, changed)] == [1, 1, 1]
    assert changed.success
    again = materialize(toy_asset("--behavior", "exit"), client, instance, tags=AUTOMATION)
    assert len(launched_by(services, again.run_id)) == 1  # a success came in between
