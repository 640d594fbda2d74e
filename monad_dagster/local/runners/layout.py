"""What a container's file system is made of: the image, the host's interpreter, the volumes.

Pure planning over directories; `enter.py` and bubblewrap carry the plan out. An image without a
system of its own (no shell) runs on the host's `/usr` and the account's interpreter, read-only.
"""

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from monad_dagster.local.images.image_rootfs import Image
from monad_dagster.local.runners.base import Mount, RunRequest

SYSTEM_DIRS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    "ssl", "ca-certificates", "pki", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "alternatives", "nsswitch.conf", "resolv.conf", "hosts", "mime.types", "OpenCL",
    "fonts",  # fontconfig complains without its configuration when matplotlib is imported
)  # fmt: skip
INTERPRETER_BIN = "/opt/local-interpreter/bin"
GPU_DEVICES = ("nvidia*", "dri", "kfd", "infiniband")


@dataclass(frozen=True)
class Entry:
    """One step of building a root, in order."""

    kind: str  # dir, symlink, bind, tmpfs, proc, dev
    target: str
    source: str = ""
    read_only: bool = True
    size_bytes: int | None = None
    devices: tuple[str, ...] = ()

    def as_dict(self) -> dict:
        """Return the step as `enter.py` reads it."""
        return asdict(self)


def container_entries(request: RunRequest, shared_dir: Path) -> list[Entry]:
    """Return the steps that build a container's root.

    Args:
        request: The container.
        shared_dir: Where the interpreter's wrappers are.
    """
    image = request.image
    binds: list[Entry] = []
    if not image.is_self_contained:
        binds += host_entries(shared_dir)
    binds += image_entries(image.root, binds)
    steps = [Entry("proc", "/proc"), Entry("bind", "/sys", "/sys")]
    steps.append(Entry("dev", "/dev", devices=tuple(gpu_devices()) if request.gpus else ()))
    volumes = [volume_entry(mount) for mount in sorted(request.mounts, key=lambda m: m.target)]
    if request.network is not None:
        binds = [entry for entry in binds if entry.target != "/etc/hosts"]
        volumes.append(Entry("bind", "/etc/hosts", str(request.network.hosts)))
        volumes.append(Entry("bind", "/etc/host.conf", str(shared_dir / "host.conf")))
    for volume in volumes:
        binds = make_room(binds, volume.target)
    folders = [Entry("dir", path) for path in ("/tmp", "/var/tmp", "/run", "/root")]  # noqa: S108
    folders.append(Entry("dir", image.config.working_dir))
    return [*folders, *binds, *steps, *volumes]


def host_entries(shared_dir: Path) -> list[Entry]:
    """Return the host's system and interpreter, read-only."""
    entries = []
    for name in SYSTEM_DIRS:
        path = Path(name)
        if path.is_symlink():
            entries.append(Entry("symlink", name, str(path.readlink())))
        elif path.is_dir():
            entries.append(Entry("bind", name, name))
    for name in ETC:
        path = Path("/etc", name)
        if path.exists():
            entries.append(Entry("bind", f"/etc/{name}", str(path.resolve())))
    tables = ("passwd", "group")
    entries += [Entry("bind", f"/etc/{name}", str(shared_dir / name)) for name in tables]
    entries += [Entry("bind", prefix, prefix) for prefix in interpreter_prefixes()]
    entries.append(Entry("bind", INTERPRETER_BIN, str(shared_dir / "bin")))
    return entries


def interpreter_prefixes() -> list[str]:
    """Return the directories the account's interpreter needs, outermost only."""
    wanted = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    wanted.update({os.path.realpath(path) for path in wanted})
    wanted.update(path for path in sys.path if path.endswith(("site-packages", "dist-packages")))
    outer: list[str] = []
    for path in sorted(path for path in wanted if Path(path).is_dir()):
        inside = (*outer, "/usr", "/bin", "/lib", "/lib64")
        if path != "/" and not any(_is_below(path, other) for other in inside):
            outer.append(path)
    return outer


def image_entries(root: Path, host: list[Entry], target: str = "") -> list[Entry]:
    """Return the image's files, merged into the host's directories where both have one."""
    entries = []
    for child in sorted(root.iterdir()):
        path = f"{target}/{child.name}"
        if path in ("/proc", "/sys", "/dev", "/.old"):
            continue
        if child.is_symlink():
            entries.append(Entry("symlink", path, str(child.readlink())))
        elif child.is_dir() and any(_is_below(entry.target, path) for entry in host):
            entries += image_entries(child, host, path)
        elif child.is_dir() or child.is_file():
            entries.append(Entry("bind", path, str(child)))
    return entries


def make_room(binds: list[Entry], target: str) -> list[Entry]:
    """Split the bind that covers *target*, where its source has no directory to mount on."""
    result: list[Entry] = []
    for entry in binds:
        if entry.kind == "bind" and entry.target != target and _is_below(target, entry.target):
            result += _split(entry, target)
        else:
            result.append(entry)
    return result


def _split(entry: Entry, target: str) -> Iterator[Entry]:
    inside = Path(entry.source, target.removeprefix(entry.target).lstrip("/"))
    if inside.is_dir() and not inside.is_symlink():
        return iter([entry])
    parts: list[Entry] = [Entry("dir", entry.target)]
    for child in sorted(Path(entry.source).iterdir()):
        path = f"{entry.target}/{child.name}"
        if child.is_symlink():
            parts.append(Entry("symlink", path, str(child.readlink())))
        elif child.is_dir() or child.is_file():
            parts.append(Entry("bind", path, str(child), entry.read_only))
    return iter(make_room(parts, target))


def volume_entry(mount: Mount) -> Entry:
    """Return a volume's step."""
    if mount.source is None:
        return Entry("tmpfs", mount.target, size_bytes=mount.size_bytes, read_only=False)
    return Entry("bind", mount.target, str(mount.source), mount.read_only)


def gpu_devices() -> list[str]:
    """Return the host's GPU device files."""
    return sorted(str(path) for pattern in GPU_DEVICES for path in Path("/dev").glob(pattern))


def prepare_shared_dir(shared_dir: Path) -> None:
    """Write the interpreter's wrappers and the user table that containers share."""
    bin_dir = shared_dir / "bin"
    bin_dir.mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3"):
        wrapper = bin_dir / name
        text = f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'
        if not wrapper.is_file() or wrapper.read_text() != text:
            wrapper.write_text(text)
            wrapper.chmod(0o755)
    (shared_dir / "passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        "container:x:1000:1000:container:/root:/bin/sh\n"
    )
    (shared_dir / "group").write_text("root:x:0:\nnogroup:x:65534:\ncontainer:x:1000:\n")
    # A name with several lines in /etc/hosts has several addresses.
    (shared_dir / "host.conf").write_text("multi on\n")


def plain_paths(image: Image) -> dict[str, str]:
    """Return the image's own directories by the path they have in a container."""
    found: dict[str, str] = {}
    for child in sorted(image.root.iterdir()):
        path = f"/{child.name}"
        if not child.is_dir() or child.is_symlink() or path in SYSTEM_DIRS or path == "/etc":
            continue
        if Path(path).exists():  # the host has it too: only what is inside can be mapped
            found.update({f"{path}/{sub.name}": str(sub) for sub in child.iterdir()})
        else:
            found[path] = str(child)
    return found


def _is_below(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent.rstrip("/") + "/")
