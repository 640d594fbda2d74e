"""A Dagster asset pipeline whose GPU materializations run as Snowflake job services.

The public surface is imported lazily so that `import monad_dagster` stays light.
"""

__version__ = "0.1.0"
