"""Two imapd processes over one store: what a client of one does, the clients of the other are told."""

import contextlib
import os
import re
import signal
import socket
import subprocess

import pytest

from imap_lines import Client
from suite import ROLES, free_port, merge, program, toml, wait_for


class Second:
    """Another imapd of the same suite, on a port of its own; `address` is what clients ask a suite for."""

    def __init__(self, suite):
        self.suite = suite
        self.port = free_port()
        folder = suite.dir / "second"
        folder.mkdir()
        run = folder / "run"
        run.mkdir()
        for role in ROLES:
            if role != "imapd":
                (run / f"{role}.sock").symlink_to(suite.dir / "run" / f"{role}.sock")
        for path in (folder, run):
            os.chown(path, (suite.dir / "run").stat().st_uid, (suite.dir / "run").stat().st_gid)
        listener = {"name": "imaps", "address": f"127.0.0.1:{self.port}", "tls": "implicit"}
        config = merge(suite.config, {"suite": {"run_dir": run}})
        config["imapd"] = {**config["imapd"], "listener": [listener]}
        file = folder / "posthouse.toml"
        file.write_text(toml(config))
        with open(suite.log, "ab") as log:
            self.process = subprocess.Popen(
                [program(), "--config", file, "run", "imapd"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                **suite._account(),
            )

    def address(self, name):
        assert name == "imaps"
        return "127.0.0.1", self.port

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()


@pytest.fixture(scope="module")
def second(shared):
    other = Second(shared)

    def up():
        assert other.process.poll() is None, shared.tail()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", other.port), timeout=1).close()
            return True

    wait_for(up, "the second imapd takes connections")
    yield other
    other.stop()


def modseq(lines):
    return max(int(number) for line in lines for number in re.findall(r"MODSEQ (?:\()?(\d+)", line))


def test_changes_cross_from_one_process_to_the_other(shared, second):
    user = shared.add_account("both@example.test")
    one, two = Client(shared, user), Client(second, user)
    two.do("SELECT INBOX")
    two.stream.sendall(b"i IDLE\r\n")
    two.until(r"^\+")
    one.append("INBOX", "first")
    two.until(r"^\* 1 EXISTS$")
    one.do("SELECT INBOX")
    one.do("STORE 1 +FLAGS (\\Flagged work)")
    two.until(r"^\* 1 FETCH .*\\Flagged work")
    one.append("INBOX", "second")
    two.until(r"^\* 2 EXISTS$")
    one.do("STORE 1 +FLAGS.SILENT (\\Deleted)")
    one.do("EXPUNGE")
    two.until(r"^\* 1 EXPUNGE$")
    two.stream.sendall(b"DONE\r\n")
    two.until("^i OK")

    # The other way round, with mod-sequences that both agree on
    one.do("ENABLE CONDSTORE")
    two.do("ENABLE CONDSTORE")
    told = two.do("STORE 1 +FLAGS (\\Seen)")
    assert modseq(one.do("NOOP")) == modseq(told)
    stale = modseq(told) - 1
    refused = one.do(f"STORE 1 (UNCHANGEDSINCE {stale}) +FLAGS (\\Answered)")
    assert "[MODIFIED 1]" in refused[-1]


def test_both_write_and_nothing_is_lost(shared, second):
    user = shared.add_account("writers@example.test")
    clients = [Client(shared, user), Client(second, user)]
    for client in clients:
        client.do("SELECT INBOX")
    for number in range(20):
        clients[number % 2].append("INBOX", f"number {number}")
    for client in clients:
        client.do("NOOP")
        found = client.do("UID SEARCH ALL")[0]
        assert found == "* SEARCH " + " ".join(str(uid) for uid in range(1, 21))
    # Each removes its half; both end with the same, and nothing
    clients[0].do("UID STORE 1:10 +FLAGS.SILENT (\\Deleted)")
    clients[1].do("UID STORE 11:20 +FLAGS.SILENT (\\Deleted)")
    clients[0].do("EXPUNGE")
    for client in clients:
        client.do("NOOP")
        assert client.do("UID SEARCH ALL")[0] == "* SEARCH"


def test_mailboxes_and_subscriptions_are_seen_at_once(shared, second):
    user = shared.add_account("folders@example.test")
    one, two = Client(shared, user), Client(second, user)
    two.do("NOTIFY SET (PERSONAL (MailboxName SubscriptionChange))")
    one.do("CREATE Projects")
    two.until(r'^\* LIST .*"?Projects"?$')
    one.do("SUBSCRIBE Projects")
    two.until(r"^\* LIST \(.*\\Subscribed.*\) .*Projects")
    one.do("RENAME Projects Archive2")
    assert any("Archive2" in line for line in two.do('LIST "" "*"'))
