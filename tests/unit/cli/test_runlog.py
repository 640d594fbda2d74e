"""The run log shown to a person."""

from monad_dagster.cli.runlog import RunLogFilter

PREFIX = "2026-11-23 19:12:06 +0000 - dagster"
IDS = "__ASSET_JOB - e0b60d05 - 6047 - predictions"


def test_progress_and_steps_are_shown_without_identifiers():
    """Information lines and step events keep the clock and the message."""
    shown = RunLogFilter()
    info = f"{PREFIX} - INFO - {IDS} - Job service X is RUNNING\n"
    event = f"{PREFIX} - DEBUG - {IDS} - STEP_SUCCESS - Finished step in 47ms.\n"
    assert shown.render(info) == "19:12:06 Job service X is RUNNING"
    assert shown.render(event) == "19:12:06 Finished step in 47ms."


def test_bookkeeping_is_left_to_the_log_file():
    """Engine events of the framework are not shown unless asked for."""
    line = f"{PREFIX} - DEBUG - {IDS} - ENGINE_EVENT - Multiprocess executor: parent\n"
    assert RunLogFilter().render(line) is None
    assert RunLogFilter(verbose=True).render(line) == line.rstrip("\n")


def test_warnings_keep_their_level_and_container_lines_pass():
    """A warning says that it is one; lines of the container are shown as they are."""
    shown = RunLogFilter()
    assert (
        shown.render(f"{PREFIX} - WARNING - {IDS} - Pool is full\n")
        == "19:12:06 WARNING Pool is full"
    )
    assert shown.render("epoch 1 loss 0.5\n") == "epoch 1 loss 0.5"


def test_a_stack_trace_of_dagster_is_left_to_the_log_file():
    """The failure's text is shown, the frames below it are not; the next event is."""
    shown = RunLogFilter()
    lines = [
        f"{PREFIX} - ERROR - {IDS} - STEP_FAILURE - Execution of step failed.",
        "dagster.Failure: Job service X ended as FAILED",
        "Stack Trace:",
        '  File "/x.py", line 3, in run',
        "The above exception was caused by the following exception:",
        f"{PREFIX} - INFO - {IDS} - Next",
    ]
    kept = [text for line in lines if (text := shown.render(line))]
    assert kept == [
        "19:12:06 ERROR Execution of step failed.",
        "dagster.Failure: Job service X ended as FAILED",
        "19:12:06 Next",
    ]
