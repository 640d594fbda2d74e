"""Older import location of `monad.interpretability`."""

from monad.interpretability import (
    attributions_to_shap_explanation,
    interpret,
    interpret_entity,
    save_shap_report,
)

__all__ = [
    "attributions_to_shap_explanation",
    "interpret",
    "interpret_entity",
    "save_shap_report",
]
