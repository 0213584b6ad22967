"""Milters as tests need them: one made with libmilter that does what it is told, and one that breaks every rule."""

import json
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from suite import free_port, unprivileged, wait_for

PYTHON = "/usr/bin/python3"


def demote():
    """As the suite's account, where we are root."""
    if not unprivileged():
        return {}
    account = pwd.getpwnam(unprivileged())
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


class Milter:
    """A process of tests/lib/milter_program.py."""

    def __init__(self, local=False):
        if subprocess.run([PYTHON, "-c", "import Milter"], capture_output=True).returncode != 0:
            pytest.skip("python3-milter is not installed (tests/setup)")
        self.dir = Path(tempfile.mkdtemp(prefix="ph-milter-"))
        self.dir.chmod(0o755)
        if demote():
            os.chown(self.dir, demote()["user"], demote()["group"])
        if local:
            self.socket = self.address = str(self.dir / "socket")
            self.listens = lambda: os.path.exists(self.socket)
        else:
            port = free_port()
            self.socket, self.address = f"inet:{port}@127.0.0.1", f"127.0.0.1:{port}"
            self.listens = lambda: answers(port)
        self.plan({})
        self.log = self.dir / "log"
        self.log.touch()
        self.log.chmod(0o666)
        self.start()

    def start(self):
        program = Path(__file__).with_name("milter_program.py")
        source = self.dir / "program.py"
        source.write_text(program.read_text())
        self.process = subprocess.Popen([PYTHON, source, self.socket, self.dir / "plan", self.log], cwd="/", **demote())
        wait_for(self.listens, "the milter listens")

    def plan(self, plan):
        """What it does from the next message on."""
        new = self.dir / "plan.new"
        new.write_text(json.dumps(plan))
        new.chmod(0o644)
        new.rename(self.dir / "plan")

    def heard(self, what=None):
        """What it has heard: all, or of one kind."""
        events = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [event for event in events if what in (None, event["what"])]

    def forget(self):
        os.truncate(self.log, 0)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        if self.socket.startswith("/"):
            os.unlink(self.socket)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def packet(letter, data=b""):
    return struct.pack(">I", len(data) + 1) + letter + data


def negotiated(actions=0x1FF, steps=0):
    return packet(b"O", struct.pack(">III", 6, actions, steps))


class Rogue:
    """A server that is no milter, or a bad one: `behave(connection, read)` is called for each connection in a thread of its own;
    `read()` is the next packet."""

    def __init__(self, behave):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.server.getsockname()[1]
        self.behave = behave
        self.connections = 0
        self.open = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(connection)
            threading.Thread(target=self.one, args=(connection,), daemon=True).start()

    def one(self, connection):
        stream = connection.makefile("rb")

        def read():
            head = stream.read(4)
            if len(head) < 4:
                raise EOFError
            (length,) = struct.unpack(">I", head)
            whole = stream.read(length)
            return whole[:1], whole[1:]

        try:
            self.behave(connection, read)
        except (OSError, EOFError):
            pass

    def stop(self):
        self.server.close()
        for connection in self.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            connection.close()
