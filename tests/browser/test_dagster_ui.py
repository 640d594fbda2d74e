"""What a person does in the Dagster UI: look at the graph, materialize, watch, cancel, read errors."""

import re
import time

import pytest
from playwright.sync_api import Locator, Page, expect

FIVE = ("image", "stage_contents", "foundation_model", "scenario_checkpoint", "predictions")
GROUPS = {"environment": FIVE[:2], "model": FIVE[2:]}
RUN_MILLISECONDS = 150_000


def appears(place: Locator) -> bool:
    """Tell whether *place* is shown within a few seconds."""
    try:
        expect(place).to_be_visible(timeout=5_000)
    except AssertionError:
        return False
    return True


def launch_everything(ui, page: Page, partition: str = "churn") -> str:
    """Press Materialize all for one partition and return the new run's id."""
    before, _ = ui.latest_run()
    page.goto(f"{ui.url}/asset-groups")
    page.get_by_role("button", name="Materialize all").first.click()
    dialog = page.get_by_role("dialog").first
    launch = dialog.get_by_role("button", name="Launch 1 run")
    for _ in range(4):  # a click while the list is still moving chooses nothing
        dialog.get_by_text("Select a partition or create one").click()
        # The list measures its labels in hidden copies; the first one is the entry itself.
        page.get_by_text(partition, exact=True).first.click(force=True)
        page.keyboard.press("Escape")
        if appears(launch):
            break
    launch.click()
    return until(lambda: _new_run(ui, before), "a new run appears")


def _new_run(ui, before: str) -> str | None:
    run_id, _ = ui.latest_run()
    return run_id if run_id != before else None


def until(probe, what: str, seconds: float = 120):
    """Poll *probe* until it returns something true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = probe()
        if found:
            return found
        time.sleep(0.25)
    pytest.fail(f"Waited {seconds} s and never saw: {what}")


@pytest.fixture
def toy_config(ui):
    """Change the foundation-model config of the toy container for one test."""
    path = ui.container_dir / "configs" / "fm_config.yaml"
    original = path.read_text()
    yield lambda text: path.write_text(original + text)
    path.write_text(original)


def test_the_graph_shows_the_five_assets(ui, page):
    """The group pages draw the five assets with their dependencies."""
    drawn = set()
    for group, names in GROUPS.items():
        page.goto(f"{ui.url}/locations/monad_dagster.definitions/asset-groups/{group}/lineage")
        for name in names:
            expect(page.get_by_text(name, exact=True).first).to_be_visible()
            drawn.add(name)
    assert drawn == set(FIVE)


def test_materialize_all_succeeds_and_the_asset_page_tells_what_ran(ui, page):
    """Five assets materialize from the UI; the asset page names job service, digest and version."""
    run_id = launch_everything(ui, page)
    page.goto(f"{ui.url}/runs/{run_id}")
    expect(page.get_by_text("Success", exact=True).first).to_be_visible(timeout=RUN_MILLISECONDS)
    page.goto(f"{ui.url}/assets/predictions?view=overview&partition=churn")
    for label in ("spcs/job_name", "spcs/image_digest_observed", "spcs/output_path"):
        expect(page.get_by_text(label, exact=True).first).to_be_visible()
    names = [name for name, status in ui.job_services() if status == "DONE"]
    assert any(page.get_by_text(name).count() for name in names)


def test_terminate_in_the_ui_cancels_the_job_service(ui, page, toy_config):
    """A user's Terminate ends the job service and the run as canceled."""
    toy_config("\n# fail: slow\n")
    known = dict(ui.job_services())
    run_id = launch_everything(ui, page)
    (name,) = until(
        lambda: [n for n, s in ui.job_services() if n not in known and s == "RUNNING"],
        "the new job service runs",
    )
    page.goto(f"{ui.url}/runs/{run_id}")
    page.get_by_role("button", name="Terminate").first.click()
    page.get_by_role("dialog").get_by_role("button", name=re.compile("Terminate")).last.click()
    until(lambda: ui.latest_run() == (run_id, "CANCELED"), "the run is canceled")
    assert dict(ui.job_services())[name] in ("CANCELLED", "CANCELLING")


def test_a_failed_job_service_shows_its_last_log_line(ui, page, toy_config):
    """The run page shows why user code failed, without a visit to another tool."""
    toy_config("\n# fail: exit\n")
    run_id = launch_everything(ui, page)
    page.goto(f"{ui.url}/runs/{run_id}")
    expect(page.get_by_text("Failure", exact=True).first).to_be_visible(timeout=RUN_MILLISECONDS)
    expect(
        page.get_by_text(re.compile("column t_dat not found in transactions")).first
    ).to_be_visible()


def test_schedules_and_sensors_are_off_until_started(ui, page):
    """Nothing that costs money runs by itself: every schedule and sensor starts switched off."""
    page.goto(f"{ui.url}/automation")
    expect(page.get_by_text("orphaned_job_services").first).to_be_visible()
    data = ui.graphql(
        "{repositoriesOrError{... on RepositoryConnection{nodes{"
        "schedules{name scheduleState{status}} sensors{name sensorState{status}}}}}}"
    )
    (repository,) = data["repositoriesOrError"]["nodes"]
    states = {s["name"]: s["scheduleState"]["status"] for s in repository["schedules"]}
    states |= {s["name"]: s["sensorState"]["status"] for s in repository["sensors"]}
    assert states
    assert set(states.values()) == {"STOPPED"}
