"""The process runner: every isolation level this host has, with real processes."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from monad_dagster.local.images.image_rootfs import Image, ImageConfig
from monad_dagster.local.runners import supervise
from monad_dagster.local.runners.addresses import Peer, hosts_text, write_hosts
from monad_dagster.local.runners.base import InstanceNetwork, Mount, RunnerError, RunRequest
from monad_dagster.local.runners.process import ProcessRunner, map_paths


@pytest.fixture(params=["bubblewrap", "unshare", "plain"], scope="module")
def runner(request, tmp_path_factory):
    """A runner of each level; levels this host does not have are skipped with the reason."""
    try:
        return ProcessRunner(tmp_path_factory.mktemp("state"), request.param)
    except RunnerError as error:
        pytest.skip(str(error))


@pytest.fixture
def image(tmp_path):
    """An image with a module and a script, without a system of its own."""
    root = tmp_path / "image"
    (root / "opt/monad/engine").mkdir(parents=True)
    (root / "opt/monad/scripts").mkdir()
    (root / "opt/monad/engine/hello.py").write_text("VALUE = 'from the image'\n")
    (root / "opt/monad/scripts/run.py").write_text("import hello; print(hello.VALUE)\n")
    return Image("sha256:x", root, ImageConfig(env={"PYTHONPATH": "/opt/monad/engine"}))


@pytest.fixture
def run(runner, image, tmp_path):
    """Start a container and wait for its end; returns (exit, log lines)."""

    def start(*argv, wait=True, **options):
        request = RunRequest(tmp_path / "run", "main", image, command=argv, **options)
        container = runner.start(request)
        if not wait:
            return container
        end = container.wait(30)
        assert end is not None
        return end, container.log_path.read_text().splitlines()

    return start


def test_image_code_runs_with_the_accounts_packages(run):
    """The image's files are at their absolute paths and `python` is the account's."""
    end, log = run("python", "/opt/monad/scripts/run.py")
    assert end.exit_code == 0, log
    time_text, stream, *text = log[0].split(" ")
    assert (stream, " ".join(text)) == ("stdout", "from the image")
    assert len(time_text) == len("2026-01-01T00:00:00.000000000Z")


def test_installed_packages_are_visible(run):
    """Packages of the account's interpreter can be imported."""
    end, log = run("python", "-c", "import yaml; print(yaml.__name__)")
    assert (end.exit_code, log[-1].split()[-1]) == (0, "yaml")


def test_volumes_are_at_their_mount_paths(run, tmp_path):
    """A stage directory is read and written at the path the specification names."""
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "in.txt").write_text("input")
    code = (
        "import sys, os; p = sys.argv[1]; open(p + '/out.txt', 'w').write("
        "open(os.environ['IN']).read() + ' seen')"
    )
    end, log = run(
        "python", "-c", code, "/app/monad_stage",
        spec_env={"IN": "/app/monad_stage/in.txt"},
        mounts=(Mount("/app/monad_stage", stage), Mount("/dev/shm", None, size_bytes=2**20)),
    )  # fmt: skip
    assert end.exit_code == 0, log
    assert (stage / "out.txt").read_text() == "input seen"


def test_environment_is_the_specifications_and_nothing_leaks(run, monkeypatch):
    """The specification wins over injected names; the host's variables are absent."""
    monkeypatch.setenv("HOST_SECRET", "leaked")
    _, log = run(
        "python", "-c", "import os, json; print(json.dumps(dict(os.environ)))",
        injected_env={"SNOWFLAKE_DATABASE": "MONAD_DB", "SNOWFLAKE_HOST": "h"},
        spec_env={"SNOWFLAKE_DATABASE": "HM_KAGGLE"},
    )  # fmt: skip
    env = json.loads(log[-1].split(" ", 2)[2])
    assert (env["SNOWFLAKE_DATABASE"], env["SNOWFLAKE_HOST"]) == ("HM_KAGGLE", "h")
    assert env["PYTHONPATH"].endswith("opt/monad/engine")
    assert "HOST_SECRET" not in env


def test_exit_code_and_both_streams_are_recorded(run):
    """The exit code comes back; standard error is tagged."""
    end, log = run("python", "-c", "import sys; print('no', file=sys.stderr); sys.exit(3)")
    assert end.exit_code == 3
    assert [line.split(" ", 1)[1] for line in log] == ["stderr no"]


def test_missing_command_is_a_start_error(run, runner):
    """A command that does not exist never starts."""
    if runner.level == "plain":
        with pytest.raises(RunnerError, match="no-such-command"):
            run("no-such-command")
        return
    end, log = run("no-such-command")
    assert end.exit_code != 0
    assert "no-such-command" in end.start_error + "".join(log)


def test_terminate_lets_the_container_finish_its_work(run, tmp_path):
    """SIGTERM reaches the command, which may clean up."""
    stage = tmp_path / "stage"
    stage.mkdir()
    code = (
        "import signal, sys, time\nbase = sys.argv[1]\n"
        "def end(*_):\n    open(base + '/ended', 'w').close(); sys.exit(5)\n"
        "signal.signal(signal.SIGTERM, end); open(base + '/ready', 'w').close(); time.sleep(60)\n"
    )
    (stage / "code.py").write_text(code)
    container = run(
        "python", "/app/s/code.py", "/app/s", wait=False, mounts=(Mount("/app/s", stage),)
    )  # fmt: skip
    _until(lambda: (stage / "ready").exists(), container)
    container.terminate()
    end = container.wait(20)
    assert end is not None
    assert end.exit_code == 5
    assert (stage / "ended").exists()


def test_terminate_at_once_is_not_lost(run):
    """A request that comes before the supervisor is up ends the container all the same."""
    container = run("python", "-c", "import time; time.sleep(60)", wait=False)
    container.terminate()
    end = container.wait(20)
    assert end is not None
    assert end.exit_code == 143


def test_container_that_ignores_sigterm_is_killed_after_the_grace(run):
    """After the grace time the container ends with 137."""
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
    container = run("python", "-c", code, wait=False, grace_seconds=0.5)
    _until(lambda: container.log_path.exists() and container.log_path.read_text(), container)
    container.terminate()
    end = container.wait(20)
    assert end is not None
    assert end.exit_code == 137


def test_memory_beyond_the_limit_ends_as_out_of_memory(run):
    """More memory than the limit kills the container and says so."""
    code = "import time; x = b'x' * (400 << 20); time.sleep(30)"
    end, _ = run("python", "-c", code, memory_limit_bytes=200 << 20)
    assert end.oom
    assert end.exit_code == 137


def test_container_is_found_again_by_its_directory(run, runner, tmp_path):
    """Another process can attach to the container, and a vanished supervisor is a lost node."""
    container = run("python", "-c", "import time; time.sleep(60)", wait=False)
    _until(lambda: (tmp_path / "run" / "supervisor.json").exists(), container)
    found = runner.attach(tmp_path / "run")
    assert found is not None
    assert found.poll() is None
    found.kill()
    end = found.wait(10)
    assert end is not None
    assert end.lost


def test_supervisor_outlives_the_process_that_started_it(runner, image, tmp_path):
    """A killed account does not take its containers along."""
    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from monad_dagster.local.images.image_rootfs import Image, ImageConfig
from monad_dagster.local.runners.process import ProcessRunner
from monad_dagster.local.runners.base import RunRequest
runner = ProcessRunner(Path({str(tmp_path)!r}), {runner.level!r})
image = Image("x", Path({str(image.root)!r}), ImageConfig())
argv = ("python", "-c", "import time; time.sleep(1.5); print('survived')")
runner.start(RunRequest(Path({str(tmp_path / "run")!r}), "main", image, command=argv))
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""
    starter = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert starter.returncode == -signal.SIGKILL
    container = runner.attach(tmp_path / "run")
    end = container.wait(20)
    assert (end.exit_code, end.lost) == (0, False)
    assert container.log_path.read_text().endswith("stdout survived\n")


def test_isolated_container_sees_its_own_world(run, runner, tmp_path):
    """With namespaces: own user, processes and file system; the interpreter is read-only."""
    if runner.level == "plain":
        pytest.skip("the plain level has no isolation")
    code = (
        "import os, socket, sys\n"
        "print(os.getuid(), len([p for p in os.listdir('/proc') if p.isdigit()]) < 5,"
        " socket.gethostname(), os.path.exists('/home'), os.path.exists(sys.argv[1]))\n"
        "open('/scratch.txt', 'w').write('x')\n"
        "try:\n    open(os.path.join(sys.prefix, 'x'), 'w')\nexcept OSError as e:\n    print(e.errno)\n"
        "print(os.stat('/app/monad_stage').st_uid)\n"
    )
    stage = tmp_path / "stage"
    stage.mkdir()
    end, log = run(
        "python", "-c", code, str(tmp_path), hostname="job-1",
        mounts=(Mount("/app/monad_stage", stage, uid=1000, gid=1000),),
    )  # fmt: skip
    assert end.exit_code == 0, log
    assert [line.split(" ", 2)[2] for line in log] == [
        "1000 True job-1 False False", "30", "1000"
    ]  # fmt: skip
    assert not Path("/scratch.txt").exists()


def test_volume_inside_an_image_directory(run, runner, image, tmp_path):
    """A volume may lie below a directory of the image."""
    if runner.level == "plain":
        pytest.skip("the plain level maps paths instead")
    stage = tmp_path / "stage"
    stage.mkdir()
    end, log = run(
        "python", "-c", "import hello; open('/opt/monad/engine/data/x', 'w').write(hello.VALUE)",
        mounts=(Mount("/opt/monad/engine/data", stage),),
    )  # fmt: skip
    assert end.exit_code == 0, log
    assert (stage / "x").read_text() == "from the image"
    assert not (image.root / "opt/monad/engine/data").exists()


def test_names_come_from_the_generated_hosts_file(run, runner, tmp_path):
    """The hosts file is the container's /etc/hosts, and changes are seen at once."""
    if runner.level == "plain":
        pytest.skip("the plain level cannot mount a hosts file")
    hosts, volume = tmp_path / "hosts", tmp_path / "volume"
    volume.mkdir()
    write_hosts(hosts, hosts_text("127.70.0.1", "job-0", []))
    code = (
        "import os, socket, time\n"
        "print(socket.gethostbyname(socket.gethostname()))\n"
        "open('/v/ready', 'w').close()\n"
        "while not os.path.exists('/v/go'): time.sleep(0.02)\n"
        "print(sorted(a[4][0] for a in socket.getaddrinfo('job', 1, type=socket.SOCK_STREAM)))\n"
    )
    network = InstanceNetwork(tmp_path, "127.70.0.1", hosts)
    container = run(
        "python", "-c", code, wait=False, hostname="job-0", network=network,
        mounts=(Mount("/v", volume),),
    )  # fmt: skip
    _until(lambda: (volume / "ready").exists(), container)
    peers = [Peer("127.70.0.1", ("job",)), Peer("127.70.0.2", ("job",))]
    write_hosts(hosts, hosts_text("127.70.0.1", "job-0", peers))
    (volume / "go").touch()
    end = container.wait(20)
    lines = [line.split(" ", 2)[2] for line in container.log_path.read_text().splitlines()]
    assert (end.exit_code, lines) == (0, ["127.70.0.1", "['127.70.0.1', '127.70.0.2']"])


def test_read_only_volume_refuses_writes(run, runner, tmp_path):
    """A stage the owner role can only read is mounted read-only."""
    if runner.level == "plain":
        pytest.skip("the plain level cannot refuse writes")
    end, log = run("python", "-c", "open('/m/x', 'w')", mounts=(Mount("/m", tmp_path, True),))
    assert end.exit_code == 1
    assert "Read-only" in log[-1]


def test_memory_volume_has_its_size(run, runner):
    """A memory volume holds as much as its size."""
    if runner.level == "plain":
        pytest.skip("the plain level has no memory volumes")
    code = "import os; s = os.statvfs('/mem'); print(s.f_blocks * s.f_frsize)"
    end, log = run("python", "-c", code, mounts=(Mount("/mem", None, size_bytes=2**22),))
    assert (end.exit_code, log[-1].split()[-1]) == (0, str(2**22))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/app/monad_stage/x", "/host/s/x"),
        ("--path=/app/monad_stage", "--path=/host/s"),
        ("/opt/a:/app/monad_stage/b", "/host/o/a:/host/s/b"),
        ("/app/monad_stage2/x", "/app/monad_stage2/x"),
        ("/data/app/monad_stage", "/data/app/monad_stage"),
    ],
)
def test_paths_are_mapped_at_their_boundaries(text, expected):
    """Only whole path prefixes are replaced."""
    assert map_paths(text, {"/app/monad_stage": "/host/s", "/opt": "/host/o"}) == expected


def test_log_times_sort_and_have_nanoseconds():
    """Log times are RFC 3339 with nanoseconds."""
    assert supervise.rfc3339(1_500_000_000_000_000_042) == "2017-07-14T02:40:00.000000042Z"


def _until(condition, container, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert container.poll() is None, container.poll()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_bubblewrap_is_reported_when_absent(tmp_path):
    """The description says why a better level is not in use."""
    runner = ProcessRunner(tmp_path)
    if shutil.which("bwrap") is None:
        assert "bwrap is not installed" in runner.describe()
    assert runner.level in runner.describe() or "namespaces" in runner.describe()
