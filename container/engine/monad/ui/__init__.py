"""The documented entry points: `from monad.ui import pretrain`."""

from monad.training.foundation import (
    fit_behavioral_representation,
    pretrain,
    train_foundation_model,
)

__all__ = ["fit_behavioral_representation", "pretrain", "train_foundation_model"]
