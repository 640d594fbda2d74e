"""The methods by name, imported when asked for: each has an environment of its own."""

from importlib import import_module

from bench.evaluation.methods.base import Method

_HOMES = {
    "recency": "recency:Recency",
    "frequency": "frequency:Frequency",
    "zero": "zero:Zero",
    "lightgbm": "lightgbm_tabular:LightGBMTabular",
    "popularity": "popularity:Popularity",
    "most-bought": "most_bought:MostBought",
    "lightgbm-ranker": "lightgbm_ranker:LightGBMRanker",
    "als": "als:ImplicitALS",
    "sasrec": "sasrec:RecToolsSASRec",
    "engine": "engine:Engine",
    "engine-labels-1": "engine:EngineLabels1",
    "engine-labels-10": "engine:EngineLabels10",
    "engine-from-scratch": "engine:EngineFromScratch",
    "engine-from-scratch-labels-1": "engine:EngineFromScratchLabels1",
    "engine-from-scratch-labels-10": "engine:EngineFromScratchLabels10",
}

METHODS = tuple(_HOMES)


def load_method(name: str) -> Method:
    """Return the method called *name*.

    Raises:
        ValueError: There is no such method.
    """
    if name not in _HOMES:
        raise ValueError(f"No method is called {name!r}. Known: {', '.join(METHODS)}.")
    module, kind = _HOMES[name].split(":")
    return getattr(import_module(f"bench.evaluation.methods.{module}"), kind)()
