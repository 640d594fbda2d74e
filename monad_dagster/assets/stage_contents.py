"""The `stage_contents` asset: scripts, config and scenarios on the stage, with a manifest.

Only files whose sha256 changed, or that are missing on the stage, are uploaded; each PUT row is
verified. The manifest is written last. One op reports the whole manifest, its slices (what each
kind of job service reads) and the version of each scenario file.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
import dagster_pipes

from monad_dagster.assets.keys import (
    DATA_VERSION_TAG,
    GROUP_ENVIRONMENT,
    SCENARIO_FILE,
    SLICE_NAMES,
    STAGE_CONTENTS,
    slice_key,
)
from monad_dagster.assets.scenarios import ScenarioFile, check_scenario, discover_scenarios
from monad_dagster.errors import ConfigError, StageError, problem
from monad_dagster.pipes.client import PipesSPCSClient, query_tag
from monad_dagster.spcs.identifiers import StagePath
from monad_dagster.spcs.stage import StageClient

if TYPE_CHECKING:
    from monad_dagster.settings import Settings

MANIFEST = "manifests/stage_contents.json"
# Which scripts each slice reads; every script uses the shared support module.
_SHARED_SCRIPTS = ("job_support.py", "dagster_pipes.py")


@dataclass(frozen=True)
class StagedFile:
    """One file of the manifest: its path below the stage root and where it lies here."""

    path: str
    local: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class Contents:
    """Everything that belongs on the stage."""

    files: tuple[StagedFile, ...]
    scenarios: tuple[ScenarioFile, ...]
    config_path: str

    @property
    def version(self) -> str:
        """sha256 over the sorted paths and hashes: the data version of `stage_contents`."""
        return _version(self.files)

    def slice_version(self, name: str) -> str:
        """Return the version of what one kind of job service reads."""
        wanted = {f"scripts/{script}" for script in (f"{name}.py", *_SHARED_SCRIPTS)}
        if name == "pretrain":
            wanted.add(self.config_path)
        return _version([file for file in self.files if file.path in wanted])

    def manifest(self) -> dict[str, Any]:
        """Return the manifest as it is written to the stage."""
        return {
            "format": 1,
            "data_version": self.version,
            "files": [
                {"path": file.path, "size": file.size, "sha256": file.sha256} for file in self.files
            ],
        }


def collect_contents(settings: "Settings") -> Contents:
    """Read what is to be staged from the container folder, and check every scenario.

    Raises:
        ConfigError: A folder or script is missing, or a scenario file cannot run.
    """
    scripts = sorted((settings.container_dir / "scripts").glob("*.py"))
    names = {script.name for script in scripts}
    missing = [f"{name}.py" for name in SLICE_NAMES if f"{name}.py" not in names]
    if missing:
        raise ConfigError(
            problem(
                f"Script {', '.join(missing)} is missing in {settings.container_dir / 'scripts'}",
                "",
                "Restore it, or run: monad-dagster init DIR",
            )
        )
    if not settings.fm_config.is_file():
        raise ConfigError(
            problem(
                "The foundation-model config does not exist", f"looked for {settings.fm_config}"
            )
        )
    scenarios = discover_scenarios(settings.scenarios)
    for scenario in scenarios:
        check_scenario(scenario)
    config_path = f"configs/{settings.fm_config.name}"
    files = [_staged(f"scripts/{script.name}", script) for script in scripts]
    # An image without Dagster's in-container half finds it beside the scripts.
    files.append(_staged("scripts/dagster_pipes.py", Path(str(dagster_pipes.__file__))))
    files.append(_staged(config_path, settings.fm_config))
    files += [_staged(f"scenarios/{s.path.name}", s.path) for s in scenarios]
    return Contents(tuple(sorted(files, key=lambda file: file.path)), scenarios, config_path)


def upload_contents(client: StageClient, root: StagePath, contents: Contents) -> list[str]:
    """Upload what changed, then the manifest, and return the uploaded paths."""
    held = _held_files(client, root)
    changed = [file for file in contents.files if held.get(file.path) != (file.sha256, file.size)]
    for file in changed:
        client.put_file(file.local, root / file.path)
    if changed or not held:
        client.put_json(contents.manifest(), root / MANIFEST)
    return [file.path for file in changed]


def _held_files(client: StageClient, root: StagePath) -> dict[str, tuple[str, int]]:
    """Return what the last manifest names and the stage still has, with hash and size."""
    if not client.exists(root / MANIFEST):
        return {}
    try:
        manifest = client.read_json(root / MANIFEST)
        entries = {entry["path"]: (entry["sha256"], entry["size"]) for entry in manifest["files"]}
    except (ValueError, KeyError, TypeError, StageError):
        return {}  # an unreadable manifest only costs a full upload
    prefix = f"{root.path}/" if root.path else ""
    listed = {
        item.path.path.removeprefix(prefix): item.size
        for folder in ("scripts", "configs", "scenarios")
        for item in client.list(root / folder)
    }
    # Sizes on an encrypted stage may be padded, so a larger file there still counts as held.
    return {
        path: (sha256, size)
        for path, (sha256, size) in entries.items()
        if path in listed and listed[path] >= size
    }


def build_stage_contents(
    settings: "Settings", scenarios: dg.StaticPartitionsDefinition
) -> list[dg.AssetsDefinition]:
    """Return the asset with its slices, and the observable scenario files."""
    specs = [
        dg.AssetSpec(
            STAGE_CONTENTS,
            group_name=GROUP_ENVIRONMENT,
            kinds={"snowflake"},
            description="Scripts, config and scenarios on the stage; the version is the manifest's.",
        ),
        *(
            dg.AssetSpec(
                slice_key(name),
                deps=[STAGE_CONTENTS],
                group_name=GROUP_ENVIRONMENT,
                kinds={"snowflake"},
                description=f"The part of the stage contents that {name}.py reads.",
            )
            for name in SLICE_NAMES
        ),
    ]

    @dg.multi_asset(name="stage_contents", specs=specs, can_subset=True)
    def stage_contents(
        context: dg.AssetExecutionContext, spcs: PipesSPCSClient
    ) -> Iterator[dg.MaterializeResult]:
        started = time.time()
        contents = collect_contents(settings)
        with spcs.session(query_tag=query_tag(context)) as session:
            uploaded = upload_contents(StageClient(session), spcs.stage_root, contents)
        context.log.info(f"Uploaded {len(uploaded)} of {len(contents.files)} files")
        for scenario in contents.scenarios:
            context.log_event(
                dg.AssetObservation(
                    SCENARIO_FILE,
                    partition=scenario.name,
                    tags={DATA_VERSION_TAG: scenario.sha256},
                )
            )
        metadata = {
            "files": dg.MetadataValue.json(contents.manifest()["files"]),
            "uploaded": dg.MetadataValue.json(uploaded),
            "stage": str(spcs.stage_root),
            "duration_seconds": time.time() - started,
        }
        yield from _results(context, _versions(contents), metadata)

    @dg.observable_source_asset(
        key=SCENARIO_FILE,
        partitions_def=scenarios,
        group_name=GROUP_ENVIRONMENT,
        description="The scenario files of the scenario folder, one version each.",
    )
    def scenario_file() -> dg.DataVersionsByPartition:
        found = discover_scenarios(settings.scenarios)
        return dg.DataVersionsByPartition({item.name: item.sha256 for item in found})

    return [stage_contents, scenario_file]  # type: ignore[list-item]


def _versions(contents: Contents) -> dict[dg.AssetKey, str]:
    slices = {slice_key(name): contents.slice_version(name) for name in SLICE_NAMES}
    return {STAGE_CONTENTS: contents.version, **slices}


def _results(
    context: dg.AssetExecutionContext,
    versions: Mapping[dg.AssetKey, str],
    metadata: Mapping[str, Any],
) -> Iterator[dg.MaterializeResult]:
    """Report every version; a slice that was not selected was uploaded all the same."""
    for key, version in versions.items():
        shown = metadata if key == STAGE_CONTENTS else {}
        if key in context.selected_asset_keys:
            yield dg.MaterializeResult(
                asset_key=key, data_version=dg.DataVersion(version), metadata=dict(shown)
            )
        else:
            context.log_event(
                dg.AssetMaterialization(key, tags={DATA_VERSION_TAG: version}, metadata=dict(shown))
            )


def _staged(path: str, local: Path) -> StagedFile:
    data = local.read_bytes()
    return StagedFile(path, local, hashlib.sha256(data).hexdigest(), len(data))


def _version(files: Sequence[StagedFile]) -> str:
    lines = [[file.path, file.sha256] for file in sorted(files, key=lambda file: file.path)]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()
