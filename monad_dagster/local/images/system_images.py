"""Images that the account brings itself, below `/snowflake/images/snowflake_images` as Snowflake's.

There is one: `runner-probe`, two static programs of a few hundred bytes, so that a container engine
can be tried on a machine that reaches no other registry. Their source is runners/probe.s.
"""

import gzip
import hashlib
import io
import json
import struct
import tarfile

from monad_dagster.local.images.image_store import OCI_MANIFEST, ImageStore, ImageStoreError

SYSTEM_REPOSITORY = ("snowflake", "images", "snowflake_images")
SYSTEM_KEY = "system"  # in the image store; catalog objects have numbers
PROBE_IMAGE = "runner-probe"
PROBE_PATH = f"{'/'.join(SYSTEM_REPOSITORY)}/{PROBE_IMAGE}"
PROBE_TAG = "1"

# Calls the account at the address in /monad/volume/target, writes /monad/volume/ok, prints "ok".
# Exit codes: 10 no target file, 11 no connection, 12 no answer, 13 the volume is not writable.
PROBE_CODE = bytes.fromhex(
    "b802000000488d3ddc00000031f631d20f0541bc0a00000085c00f88be000000"
    "4883ec2089c74889e6ba1000000031c00f0583f8100f85a3000000b829000000"
    "bf02000000be0100000031d20f0541bc0b00000085c00f888200000089c3b82a"
    "00000089df4889e6ba100000000f0585c0786bb80100000089df488d358d0000"
    "00ba1d0000000f0541bc0c00000031c089df4889e6ba100000000f0583f8047c"
    "3db802000000488d3d50000000be41000000baa40100000f0541bc0d00000085"
    "c0781bb801000000bf01000000488d3557000000ba030000000f054531e4b83c"
    "0000004489e70f052f6d6f6e61642f766f6c756d652f746172676574002f6d6f"
    "6e61642f766f6c756d652f6f6b00474554202f6d6f6e61642f72656164792048"
    "5454502f312e300d0a0d0a6f6b0a"
)
PAUSE_CODE = bytes.fromhex("b8220000000f05ebf7")  # pause() for ever
_LOAD_ADDRESS = 0x400000
_HEADER_BYTES = 64 + 56


def elf(code: bytes) -> bytes:
    """Return *code* as a static amd64 Linux program: one segment, entered at its first byte."""
    size = _HEADER_BYTES + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, _LOAD_ADDRESS + _HEADER_BYTES,
        64, 0, 0, 64, 56, 1, 0, 0, 0,
    )  # fmt: skip
    segment = struct.pack(
        "<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x1000
    )  # fmt: skip
    return header + segment + code


def ensure_probe_image(store: ImageStore) -> str:
    """Put the probe's image into the store unless it is there; return its digest."""
    layer = _layer({"probe": elf(PROBE_CODE), "pause": elf(PAUSE_CODE)})
    packed = gzip.compress(layer, mtime=0)
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/probe"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        },
        sort_keys=True,
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(config, "application/vnd.oci.image.config.v1+json"),
            "layers": [_descriptor(packed, "application/vnd.oci.image.layer.v1.tar+gzip")],
        },
        sort_keys=True,
    ).encode()
    try:
        return store.get_manifest(SYSTEM_KEY, PROBE_IMAGE, _digest(manifest)).digest
    except ImageStoreError:
        for blob in (packed, config):
            upload = store.start_upload()
            store.append(upload, blob)
            store.finish_upload(upload, _digest(blob), SYSTEM_KEY)
        return store.put_manifest(
            SYSTEM_KEY, PROBE_IMAGE, PROBE_TAG, manifest, media_type=OCI_MANIFEST
        )


def _layer(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o755
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _descriptor(content: bytes, media_type: str) -> dict[str, str | int]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
