"""A real suite in a temporary directory: started, administered, looked into, killed and stopped as an operator would."""

import contextlib
import email.utils
import imaplib
import json
import os
import pwd
import random
import shutil
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROLES = ["keyd", "authd", "stored", "deliverd", "relayd", "queued", "smtpd", "indexd", "imapd", "pop3d", "sieved"]
# They run only if their sections say `enabled = true`; certd also if it may write zones.
OPTIONAL = ["certd", "limitd", "reportd", "hookd", "httpd"]
PASSWORD = "correct horse 7 battery"

imaplib._MAXLINE = 50_000_000


def wait_for(condition, what, seconds=30, pause=0.02):
    """Waits until the condition holds, and returns what it gave. Never a fixed time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(pause)


def below_ephemeral():
    """Ports that the system does not give to connections: one of those could be in use when a daemon comes to listen there."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return range(10_000, low) if low > 12_000 else range(low, 65_536)


_given = set()


def free_port(host="127.0.0.1"):
    """A port that nobody uses now, and that nobody else here is given. A suite keeps it when its daemons are started again."""
    for port in random.sample(below_ephemeral(), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            if port not in _given:
                probe.bind((host, port))
                _given.add(port)
                return port
    raise AssertionError(f"no free port at {host}")


def unprivileged():
    """The account to run a suite as: nobody when we are root, else ourselves."""
    return "nobody" if os.geteuid() == 0 else None


_program = None


def program():
    """The program under test, where the account that runs it can execute it."""
    global _program
    if _program is None:
        built = Path(os.environ.get("POSTHOUSE", ROOT / "target/debug/posthouse"))
        assert built.exists(), f"{built} is not there: cargo build -p posthouse"
        reachable = all(p.stat().st_mode & stat.S_IXOTH for p in [built, *built.resolve().parents])
        if os.geteuid() == 0 and not reachable:
            folder = Path(tempfile.mkdtemp(prefix="ph-bin-"))
            folder.chmod(0o755)
            built = Path(shutil.copy2(built, folder))
        _program = built
    return _program


def toml(sections):
    """Writes nested dictionaries as TOML; a list of dictionaries becomes an array of tables."""
    lines = []

    def value(item):
        if isinstance(item, bool):
            return "true" if item else "false"
        if isinstance(item, (int, float)):
            return str(item)
        if isinstance(item, list):
            return "[" + ", ".join(value(one) for one in item) + "]"
        if isinstance(item, dict):
            return "{ " + ", ".join(f"{key} = {value(one)}" for key, one in item.items()) + " }"
        return json.dumps(str(item))

    def table(path, content):
        plain = {k: v for k, v in content.items() if not isinstance(v, dict) and not _tables(v)}
        if plain or not content:
            lines.append(f"[{path}]")
            lines.extend(f"{json.dumps(key)} = {value(item)}" for key, item in plain.items())
        for key, item in content.items():
            if isinstance(item, dict):
                table(f"{path}.{key}", item)
            elif _tables(item):
                for one in item:
                    lines.append(f"[[{path}.{key}]]")
                    lines.extend(f"{k} = {value(v)}" for k, v in one.items())

    for name, content in sections.items():
        table(name, content)
    return "\n".join(lines) + "\n"


def _tables(item):
    return isinstance(item, list) and item and isinstance(item[0], dict)


def merge(base, more):
    """Later settings over earlier ones, key by key."""
    merged = dict(base)
    for key, item in more.items():
        if isinstance(item, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge(merged[key], item)
        else:
            merged[key] = item
    return merged


class Failed(AssertionError):
    """A command of the tool that did not end with 0."""

    def __init__(self, command, result):
        self.code = result.returncode
        self.text = (result.stderr or "") + (result.stdout or "")
        super().__init__(f"{' '.join(map(str, command))} ended with {self.code}: {self.text}")


class Suite:
    """All daemons of one `posthouse up`."""

    def __init__(self, config=None, host="127.0.0.1", ports=None, separate=False, folder=None, launcher=()):
        self.dir = Path(folder or tempfile.mkdtemp(prefix="ph-"))
        self.host = host
        self.user = None if separate else unprivileged()
        self.launcher = list(launcher)
        if self.user:
            account = pwd.getpwnam(self.user)
            os.chown(self.dir, account.pw_uid, account.pw_gid)
        if separate:
            self.dir.chmod(0o755)
        names = ["mx", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s", "sieve"]
        self.ports = {name: (ports or {}).get(name) or free_port(host) for name in names}
        self.config = merge(self.defaults(separate), config or {})
        self.process = None
        self.log = self.dir / "suite.log"
        self.write_config()

    def defaults(self, separate):
        """Ports of our own, quick hashing, retries within seconds; everything else as it ships."""
        at = lambda name: f"{self.host}:{self.ports[name]}"
        return {
            "suite": {
                "hostname": "mail.example.test",
                "state_dir": self.dir / "state",
                "run_dir": self.dir / "run",
                "users": "separate" if separate else "single",
                "log_format": "human",
                "drain_seconds": 2,
            },
            "smtpd": {
                "listener": [
                    {"name": "mx", "address": at("mx"), "role": "mx", "tls": "starttls"},
                    {"name": "submission", "address": at("submission"), "role": "submission", "tls": "starttls"},
                    {"name": "submissions", "address": at("submissions"), "role": "submission", "tls": "implicit"},
                    {"name": "lmtp", "address": at("lmtp"), "role": "lmtp", "tls": "none"},
                ],
            },
            "imapd": {
                "listener": [
                    {"name": "imap", "address": at("imap"), "tls": "starttls"},
                    {"name": "imaps", "address": at("imaps"), "tls": "implicit"},
                ],
            },
            "pop3d": {
                "listener": [
                    {"name": "pop3", "address": at("pop3"), "tls": "starttls"},
                    {"name": "pop3s", "address": at("pop3s"), "tls": "implicit"},
                ],
            },
            "sieved": {"listener": [{"name": "sieve", "address": at("sieve"), "tls": "starttls"}]},
            "authd": {"hashing": {"memory_kib": 64, "iterations": 1}},
            "queued": {"retry_min": 1, "local_retry_min": 1, "retry_max": 3, "min_free": 8 * 1024 * 1024},
        }

    def roles(self):
        """The daemons that this suite runs."""
        runs = lambda role, section: section.get("enabled") or role == "certd" and section.get("dns", {}).get("provider")
        return ROLES + [role for role in OPTIONAL if runs(role, self.config.get(role, {}))]

    def write_config(self):
        (self.dir / "posthouse.toml").write_text(toml(self.config))

    # --- running it

    def start(self, wait=True):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*self.launcher, program(), "--dir", self.dir, "up"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **self._account(),
            )
        if wait:
            self.wait_up()
        return self

    def _account(self):
        return {"user": self.user, "group": pwd.getpwnam(self.user).pw_gid, "extra_groups": []} if self.user else {}

    def wait_up(self, seconds=40):
        def up():
            assert self.process.poll() is None, f"posthouse up ended: {self.tail()}"
            with contextlib.suppress(AssertionError):
                rows = [row for row in self.json("status") if row["state"] != "off"]
                return len(rows) == len(self.roles()) and all(row["state"] == "up" for row in rows)
            return False

        wait_for(up, lambda: f"all daemons up\n{self.tail()}", seconds, 0.05)

    def stop(self):
        """As Ctrl-C does; then nothing of it may be left."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        self.process = None

    def remove(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def tail(self, lines=40):
        try:
            return "".join(self.log.read_text(errors="replace").splitlines(True)[-lines:])
        except OSError as error:
            return str(error)

    # --- the command line tool

    def run(self, *arguments, stdin=None, check=True, env=None, as_root=False):
        command = [program(), "--dir", self.dir, *map(str, arguments)]
        account = {} if as_root else self._account()
        if isinstance(stdin, bytes):
            stdin = stdin.decode("latin-1")
        result = subprocess.run(
            command, input=stdin or "", capture_output=True, text=True, errors="replace", timeout=90, cwd="/",
            env={**os.environ, **(env or {})}, **account,
        )
        if check and result.returncode != 0:
            raise Failed(command, result)
        return result

    def json(self, *arguments, stdin=None):
        result = self.run("--json", *arguments, stdin=stdin, check=False)
        # status ends with 4 while a daemon is away, and still prints the others.
        if result.returncode not in (0, 4) or not result.stdout.strip():
            raise Failed(arguments, result)
        return json.loads(result.stdout)

    def add_domain(self, name, *options):
        self.run("domain", "add", name, *options)

    def add_account(self, name, *options, password=PASSWORD):
        self.run("account", "add", name, "--password-stdin", *options, stdin=password + "\n")
        return name

    def pids(self):
        return {row["role"]: row["pid"] for row in self.json("status") if row.get("pid")}

    def kill(self, role):
        """kill -9, by the pid that status tells; False if the daemon is just away."""
        pid = self.pids().get(role)
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return True

    def queue(self):
        return self.json("queue", "list")

    def wait_queue_empty(self, seconds=60):
        wait_for(lambda: self.queue() == [], lambda: f"queue empty, has {self.queue()}", seconds, 0.1)

    # --- mail

    def address(self, listener):
        return self.host, self.ports[listener]

    def smtp(self, listener="mx"):
        client = smtplib.SMTP(*self.address(listener), local_hostname="client.example.net", timeout=30)
        client.ehlo()
        return client

    def submission(self, user, password=PASSWORD):
        client = smtplib.SMTP_SSL(*self.address("submissions"), local_hostname="client.example.net", timeout=30,
                                  context=anybody())
        client.login(user, password)
        return client

    def send(self, to, body=None, sender="sender@example.net", listener="mx", **headers):
        """Delivers one message by SMTP, and returns its Message-ID."""
        to = [to] if isinstance(to, str) else to
        message_id = email.utils.make_msgid(domain="example.net")
        if body is None:
            body = message(message_id, to=to[0], sender=sender, **headers)
        with self.smtp(listener) as client:
            refused = client.sendmail(sender, to, body)
            assert not refused, refused
        return message_id

    def imap(self, user, password=PASSWORD):
        client = imaplib.IMAP4_SSL(*self.address("imaps"), ssl_context=anybody(), timeout=60)
        client.login(user, password)
        return client

    def messages(self, user, mailbox="INBOX", password=PASSWORD):
        """All messages of a mailbox, as octets."""
        client = self.imap(user, password)
        try:
            status, (count,) = client.select(mailbox, readonly=True)
            assert status == "OK", count
            if count == b"0":
                return []
            _, found = client.fetch("1:*", "(BODY.PEEK[])")
            return [item[1] for item in found if isinstance(item, tuple)]
        finally:
            client.logout()

    def wait_messages(self, user, count, mailbox="INBOX", seconds=30, password=PASSWORD):
        found = []

        def enough():
            # A script may have yet to make the mailbox.
            with contextlib.suppress(AssertionError):
                found[:] = self.messages(user, mailbox, password)
            return len(found) >= count

        wait_for(enough, lambda: f"{count} messages for {user} in {mailbox}, has {len(found)}\n{self.tail()}", seconds, 0.05)
        assert len(found) == count, f"{len(found)} messages instead of {count}"
        return found


def anybody():
    """TLS towards a certificate that the suite made itself."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def message(message_id, to="alice@example.test", sender="sender@example.net", subject="a letter", text="Hello.\r\n"):
    return (
        f"From: <{sender}>\r\nTo: <{to}>\r\nSubject: {subject}\r\nMessage-ID: {message_id}\r\n"
        f"Date: {email.utils.formatdate()}\r\n\r\n{text}"
    ).encode()


def body_of(raw):
    """What stands behind the header."""
    return raw.partition(b"\r\n\r\n")[2]
