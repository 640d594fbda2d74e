"""The head of the evaluation's page: which method ran on which machine."""

from bench.evaluation.report import machine_lines


def _cell(method: str, cores: int | None, budget: float | None = None) -> dict:
    cell = {"dataset": "made", "method": method, "budget_seconds": budget}
    return cell if cores is None else cell | {"machine": {"processor": "P", "cores": cores}}


def test_methods_are_listed_by_the_machine_they_ran_on():
    """Figures of two machines are never shown as those of one, and unknown ones say so."""
    cells = [_cell("b", 2), _cell("a", 2), _cell("engine", 32, 80.0), _cell("old", None)]
    assert machine_lines(cells).splitlines() == [
        "- a, b: cores 2, processor P",
        "- engine: cores 32, processor P",
        "- old: machine not recorded",
        "- Budget of the engine, for pretraining and again for each task: made 80 s",
    ]
