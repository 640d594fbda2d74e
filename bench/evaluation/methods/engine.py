"""The open engine (placeholder)."""


class Engine:
    name = "engine"
    kinds = ("binary", "regression", "recommendation")
    environment = "engine"
    seeded = True
    leave_one_out = True
