"""Replicas of a job service: addresses of their own and the documented names.

The same for containers in an engine, with its network or the host's, and for isolated processes.
A plain process has its address and no names: it sees the host's /etc/hosts.
"""

import json

import pytest


@pytest.fixture(
    params=[
        "account",
        pytest.param("docker_account", marks=pytest.mark.docker),
        pytest.param("host_network_account", marks=pytest.mark.docker),
    ]
)
def any_account(request):
    """An account of each runner."""
    return request.getfixturevalue(request.param)


def test_replicas_find_each_other_by_the_documented_names(any_account):
    """Each replica has an address of its own; names lead to all that run, and only to them."""
    code = (
        "import os, socket, time\n"
        "index, count = int(os.environ['SNOWFLAKE_JOB_INDEX']), int(os.environ['SNOWFLAKE_JOBS_COUNT'])\n"
        "own = socket.gethostbyname(socket.gethostname())\n"
        "server = socket.create_server((own, 26379))\n"
        "name = os.environ['SNOWFLAKE_SERVICE_NAME'].lower()\n"
        "look = lambda n: sorted({a[4][0] for a in socket.getaddrinfo(n, 26379, socket.AF_INET)})\n"
        "full = 'instances.' + name + '.' + os.environ['DOMAIN']\n"
        "end = time.time() + 30\n"
        "while len(look(full)) < count and time.time() < end: time.sleep(0.05)\n"
        "for address in look(name):\n"
        "    while True:\n"
        "        try: socket.create_connection((address, 26379), 5).close(); break\n"
        "        except ConnectionRefusedError: time.sleep(0.05)\n"
        "print(own in look(name), look(name) == look(full) == look(name + '.' + os.environ['DOMAIN']), len(look(name)))\n"
        # Leave together, so that nobody's name is gone while another still looks.
        "os.makedirs('/app/monad_stage/' + name, exist_ok=True)\n"
        "open('/app/monad_stage/%s/%d' % (name, index), 'w').close()\n"
        "while len(os.listdir('/app/monad_stage/' + name)) < count: time.sleep(0.05)\n"
    )
    domain = any_account.value("select system$get_service_dns_domain('monad_db.data_schema')")
    name = any_account.execute(code, env={"DOMAIN": domain}, more="replicas = 3")
    any_account.wait(name, seconds=90)
    assert [any_account.logs(name, i) for i in range(3)] == ["True True 3"] * 3
    rows = any_account.rows(f"show service instances in service {name}")
    assert len({row["ip_address"] for row in rows}) == 3


def test_plain_processes_have_addresses_and_no_names(plain_account):
    """Without a mount namespace instances still listen side by side; names do not resolve."""
    code = (
        "import os, socket\n"
        "try: socket.gethostbyname(os.environ['SNOWFLAKE_SERVICE_NAME'].lower())\n"
        "except OSError: print('no name')\n"
    )
    name = plain_account.execute(code, more="replicas = 2")
    plain_account.wait(name)
    assert [plain_account.logs(name, index) for index in range(2)] == ["no name", "no name"]
    rows = plain_account.rows(f"show service instances in service {name}")
    assert len({row["ip_address"] for row in rows}) == 2
    assert all(row["ip_address"].startswith("127.") for row in rows)


def test_services_with_endpoints_are_found_by_others(account):
    """A job service that declares an endpoint is resolved from another one of its schema."""
    endpoints = [{"name": "door", "port": 26400, "protocol": "TCP"}]
    server = (
        "import socket\n"
        "s = socket.create_server((socket.gethostbyname(socket.gethostname()), 26400))\n"
        "print('up', flush=True); c, _ = s.accept(); print(c.recv(10).decode())\n"
    )
    name = f"DOOR_{next(account.names)}"
    spec = json.loads(account.spec(server))
    spec["spec"]["endpoints"] = endpoints
    text = json.dumps(spec).replace("\\", "\\\\").replace("'", "\\'")
    account.rows(f"execute job service in compute pool cpu_pool name = {name} async = true"
                 f" from specification '{text}'")  # fmt: skip
    account.wait(name, "RUNNING")
    host = name.lower().replace("_", "-")
    client = (
        "import socket, sys, time\n"
        "for _ in range(100):\n"
        "    try: c = socket.create_connection((sys.argv[1], 26400)); break\n"
        "    except OSError: time.sleep(0.05)\n"
        "c.sendall(b'hello')\n"
    )
    account.wait(account.execute(client, host))
    account.wait(name)
    assert account.logs(name) == "up\nhello"
