"""The SQL server goes away and comes back; the disk runs full and is emptied."""

import os
import pwd
import signal
import smtplib
import subprocess

import pytest

from load import Load
from servers import MariaDb, Postgres
from suite import Suite, wait_for

MESSAGES = int(os.environ.get("CRASH_MESSAGES", "2000")) // 4


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [Postgres, MariaDb])
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_sql_server(kind, how, make_suite):
    """The directory is in SQLite here, so that mail is taken while the store is away: the journal needs no SQL."""
    if how == signal.SIGTERM and kind is Postgres:
        how = signal.SIGINT  # Its "fast" stop; TERM would wait for us.
    server = kind()
    try:
        suite = make_suite(config={"store": {"url": server.database("mail")}})
        suite.add_domain("example.test")
        people = [suite.add_account(f"p{n}@example.test") for n in range(4)]
        load = Load(suite, people)
        load.start(MESSAGES)
        load.wait_acknowledged(MESSAGES // 4)
        server.stop(how)
        load.wait_acknowledged(MESSAGES // 4)
        server.start()
        load.join()
        load.wait_kept()
        # And with the suite started while the server is away.
        server.stop(how)
        load.run(50)
        for role in ("stored", "deliverd", "imapd"):
            suite.kill(role)
        server.start()
        suite.wait_up(60)
        load.wait_kept()
    finally:
        suite = None
        server.remove()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 MB of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    for parent in [tmp_path, *tmp_path.parents[:-1]]:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    nobody = pwd.getpwnam("nobody")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=64m,mode=0755,uid={nobody.pw_uid},gid={nobody.pw_gid}", "tmpfs", folder],
                             capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("reserve", [8 * 1024 * 1024, 0], ids=["with a reserve", "to the last octet"])
def test_full_disk(small_disk, reserve):
    suite = Suite(folder=small_disk, config={"queued": {"min_free": reserve, "segment_size": 1024 * 1024}})
    try:
        suite.start()
        suite.add_domain("example.test")
        people = [suite.add_account(f"p{n}@example.test") for n in range(2)]
        load = Load(suite, people, connections=4, size=50_000)
        load.run(40)
        # Fill it up to a small rest.
        filler = small_disk / "filler"
        disk = os.statvfs(small_disk)
        filler.write_bytes(b"\xff" * (disk.f_bavail * disk.f_frsize - reserve - 3 * 1024 * 1024))
        load.start(100_000)
        wait_for(lambda: load.answers[452] >= 8, lambda: f"452: {load.answers}\n{suite.tail()}", 60)
        load.stop()
        # Only 250 and 452 were said, connections were kept.
        assert set(load.answers) <= {250, 452}, load.answers
        # Reading goes on.
        assert len(suite.messages(people[0])) >= 20
        with suite.smtp() as client:
            assert client.noop()[0] == 250
        os.unlink(filler)
        wait_for(lambda: _takes(suite, people[0]), lambda: f"mail is taken again\n{suite.tail()}", 60, 0.2)
        load.run(20)
        load.wait_kept()
        # No damage: it also starts again on it, and finds everything.
        suite.stop()
        suite.start()
        load.wait_kept()
        for word in ("corrupt", "damage", "malformed"):
            assert word not in suite.log.read_text(errors="replace").lower(), suite.tail()
    finally:
        suite.stop()


def _takes(suite, user):
    try:
        with suite.smtp() as client:
            return client.mail("a@example.net")[0] == 250 and client.rcpt(user)[0] == 250
    except (smtplib.SMTPException, OSError):
        return False
