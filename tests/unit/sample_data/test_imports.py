"""The package loads nothing heavy until it is used."""

import subprocess
import sys


def test_import_is_light():
    """Importing the package alone loads neither numpy nor pyarrow nor Dagster."""
    code = (
        "import sys, monad_dagster.sample_data\n"
        "heavy = {'numpy', 'pyarrow', 'dagster', 'pandas', 'torch'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == 0


def test_generating_needs_numpy_and_pyarrow_only():
    """The generator and the reader pull in neither Dagster nor DuckDB."""
    code = (
        "import sys\n"
        "from monad_dagster.sample_data import generate_sample, discover_tables\n"
        "heavy = {'dagster', 'torch', 'duckdb'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == 0
