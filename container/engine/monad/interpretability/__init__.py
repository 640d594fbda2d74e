"""Interpretability: the documented import location `monad.interpretability`."""

from typing import Any, NoReturn

from monad.config.support import not_built
from monad.interpretability.explain import interpret, interpret_entity

__all__ = [
    "attributions_to_shap_explanation",
    "interpret",
    "interpret_entity",
    "save_shap_report",
]
_INSTEAD = "Use the JSON files of interpret, which hold the attributions"


def attributions_to_shap_explanation(*args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG001
    """Turn attributions into a SHAP explanation. Not built: always raises."""
    raise not_built(
        "monad.interpretability.attributions_to_shap_explanation is not built in this engine",
        "the SHAP report is not part of it",
        _INSTEAD,
    )


def save_shap_report(*args: Any, **kwargs: Any) -> NoReturn:  # noqa: ARG001
    """Write the SHAP report. Not built: always raises."""
    raise not_built(
        "monad.interpretability.save_shap_report is not built in this engine",
        "the SHAP report is not part of it",
        _INSTEAD,
    )
