"""What an operator runs for hours is killed with -9: import, export, backup, restore, index rebuild. It goes on, nothing is lost, and
nothing is there twice."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from contents import contents
from peers import Dovecot
from servers import S3, Postgres
from suite import Suite, message, program, wait_for

ALICE = "alice@example.test"
BEGAN = 1700000000
# The tool's status when a daemon could not be reached.
AWAY = 4


@pytest.fixture
def place():
    """A folder that the suite's account can read and write."""
    folder = Path(tempfile.mkdtemp(prefix="ph-operations-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def suite(make_suite):
    suite = make_suite(config={"stored": {"collect_seconds": 1}})
    suite.add_domain("example.test")
    suite.add_account(ALICE)
    return suite


def letter(number):
    text = f"{number}\r\nFrom here on it is text.\r\n" + "x y z " * (20_000 if number % 50 == 7 else 40) + "\r\n"
    return message(f"<{number}.source@example.net>", subject=f"number {number}", text=text)


def begin(suite, *arguments):
    return subprocess.Popen([program(), "--dir", suite.dir, "--json", *map(str, arguments)], cwd="/", stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **suite._account())


def killed_until_done(suite, *arguments, meanwhile=lambda _: None, done=lambda _: False, first=0.02):
    """Runs it again and again, each time killed a little later, until it ends by itself; how often it was killed."""
    killed, pause, end = 0, first, time.monotonic() + 60
    while time.monotonic() < end:
        process = begin(suite, *arguments)
        try:
            _, errors = process.communicate(timeout=pause * random.uniform(0.7, 1.3))
            if process.returncode == AWAY:
                time.sleep(0.05)
                continue
            assert process.returncode == 0 or (killed and done(errors)), errors.decode(errors="replace")
            return killed
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
            pause *= 1.2
            meanwhile(killed)
    raise AssertionError("it never ended")


def all_killed(suite):
    """As when the power goes: the supervisor and all daemons at once; and started again."""
    pids = suite.pids()
    os.kill(suite.process.pid, signal.SIGKILL)
    for pid in pids.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    suite.process.wait()
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids.values()), "all gone", 20)
    suite.start()


def stored_killed(suite, round):
    if round in (2, 4, 6):
        suite.kill("stored")


# --- import

class Maildir:
    def __init__(self, place, count):
        self.folder = place / "Maildir"
        for sub in ["cur", "new", "tmp"]:
            (self.folder / sub).mkdir(parents=True)
        for number in range(count):
            path = self.folder / "cur" / f"{BEGAN + number}.M{number}.host:2,S"
            path.write_bytes(letter(number).replace(b"\r\n", b"\n"))
            os.utime(path, (BEGAN + number, BEGAN + number))
        for path in [self.folder, *self.folder.rglob("*")]:
            path.chmod(0o777 if path.is_dir() else 0o666)

    def arguments(self):
        return ["import", "maildir", self.folder]

    def remove(self):
        pass


class Mbox:
    def __init__(self, place, count, first=0):
        self.file = place / f"old{first}"
        with open(self.file, "wb") as file:
            for number in range(first, first + count):
                date = time.asctime(time.gmtime(BEGAN + number))
                lines = letter(number).replace(b"\r\n", b"\n").replace(b"\nFrom ", b"\n>From ")
                file.write(f"From me@example.net {date}\n".encode() + b"Status: RO\n" + lines + b"\n")
        self.file.chmod(0o666)

    def arguments(self):
        return ["import", "mbox", self.file]

    def remove(self):
        pass


class Imap:
    def __init__(self, _, count):
        self.server = Dovecot()
        client = self.server.imap("source")
        for number in range(count):
            date = time.strftime('"%d-%b-%Y %H:%M:%S +0000"', time.gmtime(BEGAN + number))
            assert client.append("INBOX", r"(\Seen)", date, letter(number))[0] == "OK"
        client.logout()

    def arguments(self):
        return ["import", "imap", f"127.0.0.1:{self.server.port}", "--user", "source", "--tls", "none", "--password-file",
                self.server.password_file]

    def remove(self):
        self.server.remove()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind, count", [(Maildir, 1500), (Mbox, 1500), (Imap, 600)], ids=["maildir", "mbox", "imap"])
@pytest.mark.parametrize("who", ["the tool", "and stored", "everything"])
def test_import(suite, place, kind, count, who):
    source = kind(place, count)
    try:
        meanwhile = {"the tool": lambda _: None, "and stored": lambda round: stored_killed(suite, round),
                     "everything": lambda round: round in (3, 6) and all_killed(suite)}[who]
        arguments = [*source.arguments(), "--account", ALICE]
        assert killed_until_done(suite, *arguments, meanwhile=meanwhile) >= 3
        suite.wait_up()
        found = contents(suite.imap(ALICE))["folders"]["INBOX"]
        assert [date for _, date, _ in found] == [BEGAN + number for number in range(count)], "none lost, none twice, in their order"
        assert {flags for flags, _, _ in found} == {("\\Seen",)} and len({octets for *_, octets in found}) == count
        # It knows that all of it is there.
        assert suite.json(*arguments)["imported"] == 0
        assert suite.json("fsck", "--bodies")["findings"] == []
    finally:
        source.remove()


@pytest.mark.timeout(120)
def test_stored_is_killed_while_an_import_goes_on(suite, place):
    """The import waits for stored, and each time goes on; nothing needs to be run again."""
    arguments = [*Mbox(place, 3000).arguments(), "--account", ALICE]
    process = begin(suite, *arguments)
    killed = 0
    for pause in [0.15, 0.1, 0.2, 0.1]:
        time.sleep(pause)
        if process.poll() is None and suite.kill("stored"):
            killed += 1
            wait_for(lambda: suite.pids().get("stored"), lambda: suite.tail(), 30)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 0 and killed >= 1, errors
    suite.wait_up()
    found = contents(suite.imap(ALICE))["folders"]["INBOX"]
    assert [date for _, date, _ in found] == [BEGAN + number for number in range(3000)]


# --- backup and restore

def fill(suite, place, count=300, first=0):
    """By an import, which is quick; half of it then moves to other mailboxes, and gets flags."""
    source = Mbox(place, count, first)
    suite.run(*source.arguments(), "--account", ALICE)
    client = suite.imap(ALICE)
    for at, folder in enumerate(["Lists/rust", "Old"]):
        client.create(folder)
        client.select("INBOX")
        client.store(f"1:{count // 4}", "+FLAGS", ["work", r"\Flagged"][at])
        assert client.uid("MOVE", f"{count // 4 * at + 1}:{count // 4 * (at + 1)}", folder)[0] == "OK"
    client.logout()


def complete(folder):
    return [path for path in folder.iterdir() if (path / "manifest.json").exists()]


@pytest.fixture(params=["files", "postgres and s3"])
def storage(request):
    """Sections for two suites."""
    if request.param == "files":
        yield lambda _: {}
        return
    postgres, s3 = Postgres(), S3()
    yield lambda name: {"store": {"url": postgres.database(f"mail_{name}")}, "authd": {"database": postgres.database(f"directory_{name}")},
                        "blob": s3.section() | {"prefix": f"{name}/"}}
    postgres.remove()
    s3.remove()


@pytest.mark.timeout(180)
def test_backup_and_restore(storage, place, make_suite):
    suite = make_suite(config=storage("one"))
    suite.add_domain("example.test")
    suite.add_account(ALICE)
    fill(suite, place, 1000)
    before = contents(suite.imap(ALICE))
    backup = place / "backup"
    kills = killed_until_done(suite, "backup", backup, meanwhile=lambda round: stored_killed(suite, round))
    # One that was killed behind its last step is complete, too.
    assert kills >= 3 and complete(backup)
    suite.wait_up()
    # Again, killed as often: what was complete stays so.
    first = min(complete(backup))
    fill(suite, place, 30, 5000)
    after = contents(suite.imap(ALICE))
    killed_until_done(suite, "backup", backup)
    suite.run("verify", backup)
    suite.run("verify", backup, "--generation", first.name)
    suite.stop()

    target = make_suite(start=False, config=storage("two"))
    unfinished = lambda: (target.dir / "state/restore.json").exists()
    done = lambda errors: b"not empty" in errors and not unfinished()
    refused = []

    def look(round):
        # Another generation is refused while one is under way.
        if round == 3 and unfinished():
            result = target.run("restore", backup, "--generation", first.name, check=False)
            refused.append(result.returncode == 1 and "unfinished here" in result.stderr)

    assert killed_until_done(target, "restore", backup, meanwhile=look, done=done) >= 3
    assert all(refused)
    target.start()
    assert contents(target.imap(ALICE)) == after != before
    assert target.json("fsck", "--bodies")["findings"] == []


@pytest.mark.timeout(120)
def test_export(suite, place):
    """Killed, it leaves nothing under the name; run again, it is whole, and comes back as it was."""
    fill(suite, place, 1000)
    before = contents(suite.imap(ALICE))
    out = place / "out"
    named = lambda _: out.exists()

    def unnamed(_):
        assert not out.exists() or suite.run("export", "account", ALICE, out, check=False).returncode == 1

    assert killed_until_done(suite, "export", "account", ALICE, out, meanwhile=unnamed, done=named) >= 2
    bob = suite.add_account("bob@example.test")
    suite.run("import", "maildir", out, "--account", bob)
    assert contents(suite.imap(bob)) == before


# --- the index

@pytest.mark.timeout(180)
def test_index_rebuild(make_suite, place):
    suite = make_suite(config={"indexd": {"batch_messages": 20, "commit_messages": 50, "idle_s": 1, "purge_s": 1}})
    suite.add_domain("example.test")
    suite.add_account(ALICE)
    fill(suite, place, 900)

    def figures():
        with contextlib.suppress(AssertionError):
            return suite.json("index", "status")

    def whole():
        now = figures()
        return now and now["documents"] == 900 and now["missing"] == 0 and not now["rebuild"] and not now["trouble"]

    wait_for(whole, lambda: f"{figures()}\n{suite.tail()}", 60, 0.1)
    suite.run("index", "rebuild")
    caught = 0
    for pause in [0.02, 0.05, 0.1, 0.1, 0.2, 0.3]:
        time.sleep(pause)
        now = figures()
        caught += bool(now and now["rebuild"])
        suite.kill("indexd")
        wait_for(figures, lambda: suite.tail(), 60)
    assert caught >= 2, "the rebuild was too quick to be killed"
    wait_for(whole, lambda: f"{figures()}\n{suite.tail()}", 60, 0.1)
    client = suite.imap(ALICE)
    client.select("INBOX")
    assert len(client.search(None, "TEXT", '"here on"')[1][0].split()) == 450
