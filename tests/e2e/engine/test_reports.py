"""What a training reports while it runs, for the pipeline to show."""

import logging

from monad.training import watch
from monad.ui import pretrain
from tests.unit.engine.sample import shop_config, write_config, write_shop


def test_a_training_reports_loss_speed_and_what_is_left(tmp_path, caplog, monkeypatch):
    """Each report carries step, epoch, loss, rate, speed and seconds left as numbers."""
    monkeypatch.setattr(watch, "_REPORT_SECONDS", 0.0)
    directory = write_shop(tmp_path, customers=12)
    with caplog.at_level(logging.INFO, "monad"):
        pretrain(write_config(directory, shop_config(directory, epochs=2)), directory / "out")
    found = [r.monad_metrics for r in caplog.records if "Pretraining: step" in r.getMessage()]
    assert [values["step"] for values in found] == list(range(1, len(found) + 1))
    wanted = {
        "step",
        "epoch",
        "progress",
        "loss",
        "learning_rate",
        "rows_per_second",
        "steps_per_second",
        "seconds_left",
    }
    assert all(wanted <= set(values) for values in found)
    assert all(isinstance(x, (int, float)) for values in found for x in values.values())
    assert found[-1]["progress"] == 1.0
    assert {values["epoch"] for values in found} == {0, 1}
