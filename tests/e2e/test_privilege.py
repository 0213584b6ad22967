"""Least privilege, shown: started as root under the accounts of the topology, each daemon tries to break out."""

import os
import shutil
import subprocess
import tomllib

import pytest

from suite import OPTIONAL, ROOT, Suite, free_port, message

TOPOLOGY = tomllib.loads((ROOT / "ipc/topology.toml").read_text())

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it makes system accounts")


def landlock_is_enforced(suite, role):
    """What the daemon says of the kernel that it runs on."""
    facts = next(row for row in suite.json("status") if row["role"] == role)["sandbox"]
    (fact,) = [fact for fact in facts if fact.startswith("landlock:")]
    incomplete = "not available" in fact or "not complete" in fact
    assert incomplete or "files" in fact, fact
    return not incomplete


@pytest.fixture(scope="module")
def accounts():
    """The system accounts, made as sysusers.d would; those that were not there before go away again."""
    if not shutil.which("useradd"):
        pytest.skip("useradd is not installed")
    have = lambda database, name: subprocess.run(["getent", database, name], capture_output=True).returncode == 0
    made_group = not have("group", "posthouse")
    if made_group:
        subprocess.run(["groupadd", "--system", "posthouse"], check=True)
    made = []
    for daemon in TOPOLOGY.values():
        if not have("passwd", daemon["user"]):
            subprocess.run(["useradd", "--system", "--user-group", "--groups", "posthouse", "--no-create-home", "--home-dir",
                            "/nonexistent", "--shell", "/usr/sbin/nologin", daemon["user"]], check=True)
            made.append(daemon["user"])
    yield
    for user in made:
        subprocess.run(["userdel", user], check=False, capture_output=True)
    if made_group:
        subprocess.run(["groupdel", "posthouse"], check=False, capture_output=True)


@pytest.fixture(scope="module")
def suite(accounts):
    everything = {role: {"enabled": True} for role in OPTIONAL}
    # Nobody gives certificates there.
    everything["certd"]["directory"] = "https://127.0.0.1:9/directory"
    suite = Suite(everything, separate=True)
    suite.start()
    suite.add_domain("example.test")
    yield suite
    suite.remove()


def probe(suite, role, *what):
    import json
    result = suite.run("--json", "probe", role, *what, check=False)
    assert result.returncode in (0, 3), result.stderr
    answer = json.loads(result.stdout)
    assert answer["possible"] == (result.returncode == 3)
    return answer


def test_each_daemon_runs_as_its_own_user(suite):
    import pwd
    for row in suite.json("status"):
        assert pwd.getpwuid(row["uid"]).pw_name == TOPOLOGY[row["role"]]["user"]
        status = dict(line.split(":\t", 1) for line in open(f"/proc/{row['pid']}/status").read().splitlines() if ":\t" in line)
        assert set(status["Uid"].split()) == {str(row["uid"])}, "no way back"
        assert int(status["CapEff"], 16) == 0 and int(status["CapPrm"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2", "a filter of system calls is in force"


def test_mail_travels_between_them(suite):
    user = suite.add_account("alice@example.test")
    suite.send(user)
    big = message("<big@example.net>", to=user) + b"0123456789abcdef\r\n" * 20_000
    suite.send(user, big)
    suite.wait_messages(user, 2)
    with suite.submission(user) as client:
        client.sendmail(user, user, message("<own@example.test>", to=user, sender=user))
    suite.wait_messages(user, 3)
    client = suite.imap(user)
    client.append("INBOX", "", None, big)
    client.select("INBOX")
    client.store("1", "+FLAGS", "\\Seen")
    client.logout()


@pytest.mark.parametrize("role", TOPOLOGY)
def test_the_state_of_others_is_out_of_reach(suite, role):
    for owner, daemon in TOPOLOGY.items():
        if owner == role or not daemon["state"]:
            continue
        folder = suite.dir / "state" / daemon["state"]
        files = [file for file in folder.rglob("*") if file.is_file()]
        # Those that had nothing to do yet keep nothing; their folders are probed all the same.
        assert files or owner in OPTIONAL, f"{owner} keeps something in {folder}"
        may_read = daemon["state"] in TOPOLOGY[role]["group_reads"]
        for file in [folder, *files[:3]]:
            assert not probe(suite, role, "write", file)["possible"], f"{role} writes {file}"
            if not may_read:
                assert not probe(suite, role, "read", file)["possible"], f"{role} reads {file}"


@pytest.mark.parametrize("role", TOPOLOGY)
def test_foreign_paths_are_out_of_reach(suite, role):
    for path in ["/etc/shadow", "/root"]:
        assert not probe(suite, role, "read", path)["possible"], f"{role} reads {path}"
    for path in ["/etc", "/usr/bin", "/root"]:
        assert not probe(suite, role, "write", path)["possible"], f"{role} writes {path}"
    assert not probe(suite, role, "execute", "/bin/true")["possible"], f"{role} runs programs"
    # What everybody may read by its mode is closed by Landlock alone, where the kernel has it.
    if landlock_is_enforced(suite, role):
        for path in ["/etc/passwd", "/usr/bin/env", "/usr", "/proc/1/status"]:
            assert not probe(suite, role, "read", path)["possible"], f"{role} reads {path}"
        assert not probe(suite, role, "write", "/tmp")["possible"], f"{role} writes /tmp"


@pytest.mark.parametrize("role", TOPOLOGY)
def test_the_network_is_as_the_topology_says(suite, role):
    network = TOPOLOGY[role]["network"]
    here = "%s:%d" % suite.address("mx")
    connects = network in ("connect", "both")
    if network == "listen+dns":
        # Name servers only, over TCP where an answer is long: their port, and no other.
        assert not probe(suite, role, "listen", "127.0.0.1:0")["possible"], f"{role} listens"
        if landlock_is_enforced(suite, role):
            assert not probe(suite, role, "connect", here)["possible"], f"{role} connects"
            assert not probe(suite, role, "connect", "127.0.0.1:%d" % free_port())["possible"], f"{role} connects"
        assert probe(suite, role, "connect", "127.0.0.1:53")["possible"], f"{role} must be able to ask name servers"
    elif not connects:
        # SQLite: no server to talk to. Listeners got their sockets before the sandbox. So no new socket at all.
        assert not probe(suite, role, "connect", here)["possible"], f"{role} connects"
        assert not probe(suite, role, "listen", "127.0.0.1:0")["possible"], f"{role} listens"
    elif landlock_is_enforced(suite, role):
        assert not probe(suite, role, "listen", "127.0.0.1:0")["possible"], f"{role} listens anew"
    if connects:
        assert probe(suite, role, "connect", here)["possible"], f"{role} must be able to connect"


def test_strangers_cannot_call(suite):
    """A process of another user gets no answer from any daemon."""
    for role in TOPOLOGY:
        code = ("import socket,sys\ns=socket.socket(socket.AF_UNIX)\n"
                "try:\n s.connect(sys.argv[1]); s.settimeout(5); s.sendall(b'x'*64); sys.exit(0 if s.recv(1)==b'' else 1)\n"
                "except PermissionError: sys.exit(0)\nexcept ConnectionError: sys.exit(0)\n")
        result = subprocess.run(["/usr/bin/python3", "-c", code, str(suite.dir / "run" / f"{role}.sock")], user="nobody",
                                group="nogroup", extra_groups=[], capture_output=True, text=True)
        assert result.returncode == 0, (role, result.stderr)


def test_the_security_page_says_the_same(suite):
    shown = {row["role"]: row for row in suite.json("status", "--security")}
    assert "read keys" in shown["smtpd"]["cannot"] and "run /bin/true" in shown["imapd"]["cannot"]
    assert "connect by TCP" in shown["keyd"]["cannot"]
