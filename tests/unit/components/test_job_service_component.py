"""The YAML component gives an asset with the attributes that were written."""

import importlib
from pathlib import Path

import dagster as dg
import pytest
import yaml

from monad_dagster.components import JobServiceComponent

DOCUMENT = """
asset: { key: nightly/features, deps: [raw_events], group_name: features }
image: /monad_db/data_schema/image_repository/features:1.2
command: [python]
args: [/app/build.py, --out, "{output_path}"]
output_path: nightly_features
replicas: 2
"""


def _resolve(text: str) -> JobServiceComponent:
    return JobServiceComponent.resolve_from_yaml(text)


def test_attributes_reach_the_asset():
    """Key, dependencies and group of the asset are those of the YAML."""
    component = _resolve(DOCUMENT)
    definitions = component.build_defs(dg.ComponentTree.for_test().load_context)
    (asset,) = definitions.assets
    (spec,) = asset.specs
    assert spec.key == dg.AssetKey(["nightly", "features"])
    assert [dep.asset_key for dep in spec.deps] == [dg.AssetKey("raw_events")]
    assert spec.group_name == "features"
    assert "spcs" in asset.required_resource_keys


def test_the_documented_yaml_is_one_asset():
    """The example of the documentation resolves to what it says."""
    text = Path("docs/examples/defs.yaml")
    document = yaml.safe_load((Path(__file__).parents[3] / text).read_text())
    module, name = document["type"].rsplit(".", 1)
    assert getattr(importlib.import_module(module), name) is JobServiceComponent
    component = _resolve(yaml.safe_dump(document["attributes"]))
    assert component.asset.key == dg.AssetKey("nightly_features")
    assert component.command[-1] == "{output_path}"
    assert component._options().memory == "8Gi"


def test_launch_options_come_from_the_yaml():
    """Replicas and the reporting rule reach the client."""
    options = _resolve(DOCUMENT)._options()
    assert (options.replicas, options.require_materialization) == (2, True)


def test_an_unknown_key_is_refused():
    """A misspelt attribute is an error that names it."""
    document = yaml.safe_load(DOCUMENT) | {"imagee": "x"}
    with pytest.raises(Exception, match="imagee"):
        _resolve(yaml.safe_dump(document))
