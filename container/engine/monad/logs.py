"""The documented log format and the lines that carry metrics.

Loggers are `monad.fit`, `monad.pretrain` and `monad.run`. A line that carries numbers has the
record attribute `monad_metrics`, a dict, so that a handler can forward it without parsing text.
"""

import logging
import sys
from collections.abc import Mapping

FORMAT = "%(asctime)s - %(levelname)s - %(name)s: %(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"

fit_logger = logging.getLogger("monad.fit")
pretrain_logger = logging.getLogger("monad.pretrain")
run_logger = logging.getLogger("monad.run")


def configure_logging() -> None:
    """Send `monad.*` to standard error in the documented format, unless a handler exists."""
    root = logging.getLogger("monad")
    if root.level == logging.NOTSET:
        root.setLevel(logging.INFO)
    above = logging.getLogger().handlers
    if root.handlers or any(isinstance(handler, logging.StreamHandler) for handler in above):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT, DATE_FORMAT))
    root.addHandler(handler)
    for noisy in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def log_metrics(logger: logging.Logger, message: str, metrics: Mapping[str, float | int]) -> None:
    """Log *message* with *metrics* attached as `record.monad_metrics`."""
    plain = {str(k): v for k, v in metrics.items() if isinstance(v, (int, float))}
    logger.info(message, extra={"monad_metrics": plain})
