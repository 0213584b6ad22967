"""A store of the first schema, brought to this one: killed at any time, without room, and put back."""

import contextlib
import json
import os
import pwd
import random
import signal
import sqlite3
import subprocess
import time

import pytest

from contents import contents
from servers import MariaDb, Postgres
from suite import Suite, message, program, wait_for

ALICE = "alice@example.test"
COUNT = int(os.environ.get("MIGRATION_MESSAGES", "20000"))
# What the second step of the schema brought. A later step belongs here, too.
NEWER = ["owner", "script", "acl", "metadata", "noted"]
FIRST = 50
SECTIONS = {"stored": {"collect_seconds": 1}}


def grow(run, count):
    """Makes of the messages in INBOX so many, each with a content of its own, as its rows would be."""
    inbox, account, kept, size = run("SELECT m.mailbox, m.account, MAX(m.uid), SUM(m.size) FROM message m JOIN mailbox b ON "
                                     "b.id = m.mailbox WHERE b.name = 'INBOX' GROUP BY m.mailbox, m.account")
    assert int(kept) == FIRST
    top = int(run("SELECT MAX(next_id) FROM account")[0])
    rounds = count // FIRST - 1
    for number in range(1, rounds + 1):
        up, ids = number * FIRST, top + number * 1000
        run(f"INSERT INTO content SELECT account, id + {ids}, blob_id, prefix, parsed FROM content WHERE account = {account} AND id < {top}")
        run(f"INSERT INTO message SELECT mailbox, uid + {up}, account, content + {ids}, email + {ids}, thread + {ids}, flags, keywords, "
            f"date + {up}, saved, modseq, size FROM message WHERE mailbox = {inbox} AND uid <= {FIRST}")
    more = rounds * FIRST
    run(f"UPDATE account SET next_id = next_id + {(rounds + 2) * 1000}, messages = messages + {more}, bytes = bytes + {rounds * int(size)} WHERE id = {account}")
    run(f"UPDATE mailbox_state SET uidnext = uidnext + {more}, total = total + {more}, unseen = unseen + {more}, "
        f"bytes = bytes + {rounds * int(size)} WHERE id = {inbox}")


def make_old(run, count):
    grow(run, count)
    for table in NEWER:
        run(f"DROP TABLE {table}")
    run("UPDATE schema_version SET version = 1 WHERE component = 'mail'")


def fill(suite):
    suite.add_domain("example.test")
    suite.add_account(ALICE)
    client = suite.imap(ALICE)
    for number in range(FIRST):
        client.append("INBOX", "", None, message(f"<{number}.old@example.net>", text=f"{number}\r\n" * (20_000 if number == 7 else 100)))
    client.logout()


def sqlite_runner(db):
    return lambda text: db.execute(text).fetchone()


def old_sqlite(suite, count=COUNT):
    """Its store becomes one that an earlier program has left, with so many messages."""
    fill(suite)
    suite.stop()
    with contextlib.closing(sqlite3.connect(suite.dir / "state/store/mail.db")) as db, db:
        make_old(sqlite_runner(db), count)


def seen(suite):
    found = contents(suite.imap(ALICE))
    return found["folders"]["INBOX"], found


def points(suite):
    return suite.json("schema", "show")["points"]


def stored_alone(suite):
    """stored itself, without the supervisor that would start it again."""
    log = open(suite.dir / "stored.log", "ab")
    with log:
        return subprocess.Popen([program(), "--dir", suite.dir, "run", "stored"], cwd="/", stdin=subprocess.DEVNULL, stdout=log,
                                stderr=log, **suite._account())


def killed_at_its_start(suite, version, longer=1.15):
    """Starts stored and kills it, ever later, until the schema is the new one; how often it was killed before that."""
    killed, pause = 0, 0.03
    for _ in range(50):
        process = stored_alone(suite)
        time.sleep(pause * random.uniform(0.8, 1.2))
        alive = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert alive, (suite.dir / "stored.log").read_text()[-2000:]
        if version() != 1:
            return killed
        killed += 1
        pause *= longer
    raise AssertionError(f"never migrated\n{(suite.dir / 'stored.log').read_text()[-2000:]}")


def sqlite_version(suite):
    with contextlib.closing(sqlite3.connect(suite.dir / "state/store/mail.db")) as db:
        return db.execute("SELECT version FROM schema_version WHERE component = 'mail'").fetchone()[0]


@pytest.mark.timeout(120)
def test_killed_at_any_time_of_a_migration(make_suite):
    suite = make_suite(config=SECTIONS)
    old_sqlite(suite)
    told = suite.run("--json", "check", "--offline", check=False).stdout
    (finding,) = [row for row in json.loads(told) if row["area"] == "store" and "schema 1" in row["finding"]]
    assert finding["grade"] == "warning" and "makes a backup point when it starts" in finding["finding"]
    store = suite.dir / "state/store"
    assert killed_at_its_start(suite, lambda: sqlite_version(suite)) >= 3
    suite.start()
    inbox, _ = seen(suite)
    assert len(inbox) == COUNT // FIRST * FIRST
    assert len({date for _, date, _ in inbox}) >= len(inbox) // FIRST and len({digest for *_, digest in inbox}) == FIRST
    assert suite.json("fsck")["findings"] == []
    # A point from before, whole, and readable for its owner alone; and nothing half-made beside it. (Two, if it was killed in the
    # moment between the point's name and the note of it: nothing was changed yet then.)
    found = points(suite)
    assert 1 <= len(found) <= 2
    assert [name for name in os.listdir(store) if name.endswith((".part", "-journal"))] == []
    for point in found:
        assert point["version"] == 1 and os.stat(point["point"]).st_mode & 0o777 == 0o600
        with contextlib.closing(sqlite3.connect(f"file:{point['point']}?mode=ro&immutable=1", uri=True)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("SELECT version FROM schema_version WHERE component = 'mail'").fetchone() == (1,)
            assert db.execute("SELECT COUNT(*) FROM message").fetchone() == (len(inbox),)
    suite.send(ALICE)
    suite.wait_queue_empty()
    assert suite.json("schema", "show")["schemas"][0]["at_start"] == "as this program needs it"


@pytest.mark.timeout(120)
def test_a_point_is_put_back(make_suite):
    suite = make_suite(config=SECTIONS)
    old_sqlite(suite, 500)
    suite.start()
    before, _ = seen(suite)
    suite.send(ALICE)
    suite.wait_messages(ALICE, 501)
    (point,) = points(suite)
    refused = suite.run("schema", "back", point["point"], check=False)
    assert refused.returncode == 1 and "stop all daemons" in refused.stderr
    suite.stop()
    refused = suite.run("schema", "back", suite.dir / "posthouse.toml", check=False)
    assert refused.returncode == 1 and "no backup point" in refused.stderr
    done = suite.json("schema", "back", point["point"])
    assert sqlite_version(suite) == 1
    with contextlib.closing(sqlite3.connect(done["aside"])) as db:
        assert db.execute("SELECT COUNT(*) FROM message").fetchone() == (501,)
    # A program of today brings it up again, and makes a point again: there is one of each time.
    suite.start()
    assert seen(suite)[0] == before
    assert [one["version"] for one in points(suite)] == [1, 1]


@pytest.mark.timeout(120)
def test_a_newer_schema_is_refused(make_suite):
    suite = make_suite()
    suite.stop()
    with contextlib.closing(sqlite3.connect(suite.dir / "state/store/mail.db")) as db, db:
        db.execute("UPDATE schema_version SET version = 99 WHERE component = 'mail'")
    process = stored_alone(suite)
    assert process.wait(30) != 0
    assert "version 99" in (suite.dir / "stored.log").read_text()
    told = json.loads(suite.run("--json", "check", "--offline", check=False).stdout)
    assert [row for row in told if row["grade"] == "error" and "schema 99" in row["finding"] and "will not start" in row["finding"]]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 96 MB of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    for parent in [tmp_path, *tmp_path.parents[:-1]]:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    nobody = pwd.getpwnam("nobody")
    options = f"size=96m,mode=0755,uid={nobody.pw_uid},gid={nobody.pw_gid}"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=False)


@pytest.mark.timeout(120)
def test_without_room_nothing_is_changed_and_it_goes_on_when_there_is(small_disk):
    suite = Suite(folder=small_disk, config=SECTIONS)
    try:
        suite.start()
        old_sqlite(suite, 2000)
        disk = os.statvfs(small_disk)
        filler = small_disk / "filler"
        filler.write_bytes(b"\xff" * (disk.f_bavail * disk.f_frsize - (6 << 20)))
        process = stored_alone(suite)
        log = suite.dir / "stored.log"
        wait_for(lambda: "no backup point could be made" in log.read_text(), lambda: log.read_text()[-2000:], 30)
        told = json.loads(suite.run("--json", "check", "--offline", check=False).stdout)
        assert [row for row in told if row["grade"] == "error" and "there is no room for that" in row["finding"]]
        assert [row for row in told if row["grade"] == "error" and "no backup point could be made" in row["finding"]]
        assert sqlite_version(suite) == 1 and points(suite) == []
        filler.unlink()
        # It waits for room, and needs nobody then.
        wait_for(lambda: sqlite_version(suite) != 1, lambda: log.read_text()[-2000:], 60, 0.2)
        process.terminate()
        process.wait(30)
        suite.start()
        assert len(seen(suite)[0]) == 2000 and len(points(suite)) == 1
        assert suite.json("fsck")["findings"] == []
    finally:
        suite.stop()


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", [Postgres, MariaDb])
def test_killed_on_a_server(kind, make_suite):
    server = kind()
    try:
        suite = make_suite(config={**SECTIONS, "store": {"url": server.database("mail")}})
        fill(suite)
        suite.stop()

        def run(text):
            if kind is Postgres:
                command = [server.bin / "psql", "-qXAt", "-F", "\t", "-h", "127.0.0.1", "-p", str(server.port), "-U", "posthouse",
                           "-d", "mail", "-v", "ON_ERROR_STOP=1", "-c", text]
            else:
                command = ["mariadb", "--no-defaults", f"--socket={server.socket}", "-u", "root", "-N", "-B", "mail", "-e", text]
            out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
            return out.split("\t") if out else None

        make_old(run, 1000)
        version = lambda: int(run("SELECT version FROM schema_version WHERE component = 'mail'")[0])
        assert killed_at_its_start(suite, version, 1.4) >= 1
        suite.start()
        before, _ = seen(suite)
        assert len(before) == 1000
        assert suite.json("fsck")["findings"] == []
        *_, point = points(suite)
        assert point["version"] == 1 and point["point"].startswith(str(suite.dir / "state/store/mail-schema1-"))
        suite.send(ALICE)
        suite.wait_messages(ALICE, 1001)
        suite.stop()
        # Putting back is killed, too: nobody begins with the half of it.
        for pause in [0.05, 0.1, 0.2]:
            process = subprocess.Popen([program(), "--dir", suite.dir, "schema", "back", point["point"]], cwd="/",
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **suite._account())
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            process.wait()
        if version() not in (1, 2):
            assert stored_alone(suite).wait(30) != 0
            assert "unfinished" in (suite.dir / "stored.log").read_text()
        suite.json("schema", "back", point["point"])
        assert version() == 1
        suite.start()
        assert seen(suite)[0] == before
    finally:
        suite.stop()
        server.remove()
