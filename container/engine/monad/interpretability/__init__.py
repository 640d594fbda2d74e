"""Interpretability: the documented import location `monad.interpretability`.

The names exist with their documented parameters; none is built yet, and each call says so.
"""

# ruff: noqa: ARG001 - the documented parameters of functions that are not built

from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from monad.config.support import not_built

__all__ = [
    "attributions_to_shap_explanation",
    "interpret",
    "interpret_entity",
    "save_shap_report",
]
_INSTEAD = (
    "Explain a surrogate: fit boosted trees on your own features to the scores in predictions.tsv"
    " and use shap on it"
)


def _refuse(name: str, observed: str) -> NoReturn:
    raise not_built(
        f"monad.interpretability.{name} is not built in this engine", observed, _INSTEAD
    )


def interpret(
    predictions_path: Path | str,
    output_path: Path | str,
    checkpoint_path: Path | str,
    device: str,
    prediction_date: datetime | None = None,
    limit_batches: int | None = None,
    target_index: int | None = None,
    classification_resample: bool = False,
    recommended_value: Any = None,
    group_size: int = 500,
    method: str = "integrated_gradients",
    save_shap_plots: bool = False,
    **further: Any,
) -> None:
    """Attribute predictions to sources, columns and values. Not built: always raises.

    Raises:
        NotBuiltError: Always, before anything is read or written.
    """
    _refuse("interpret", f"called for {checkpoint_path}")


def interpret_entity(
    output_path: Path | str,
    checkpoint_path: Path | str,
    predictions_path: Path | str,
    main_entity_id: Any,
    device: str,
    prediction_date: datetime | None = None,
    target_index: int | None = None,
) -> None:
    """Attribute one entity's prediction to its events. Not built: always raises.

    Raises:
        NotBuiltError: Always, before anything is read or written.
    """
    _refuse("interpret_entity", f"called for main entity {main_entity_id}")


def attributions_to_shap_explanation(*args: Any, **kwargs: Any) -> NoReturn:
    """Turn attributions into a SHAP explanation. Not built: always raises."""
    _refuse("attributions_to_shap_explanation", "there are no attributions to convert")


def save_shap_report(*args: Any, **kwargs: Any) -> NoReturn:
    """Write the SHAP report. Not built: always raises."""
    _refuse("save_shap_report", "there are no attributions to report")
