"""posthouse backup, verify and restore: online, incremental, killed in the middle, and into another kind of database."""

import hashlib
import imaplib
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

from contents import contents
from servers import MariaDb, Postgres
from suite import PASSWORD, Suite, message, program

ALICE, BOB = "alice@example.test", "bob@example.test"


@pytest.fixture
def place():
    """A folder that the suite's account can write."""
    folder = Path(tempfile.mkdtemp(prefix="ph-backup-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def suite():
    suite = Suite().start()
    suite.add_domain("example.test")
    for name in [ALICE, BOB]:
        suite.add_account(name)
    yield suite
    suite.remove()


def fill(suite, count=40, first=0):
    client = suite.imap(ALICE)
    for folder in ["Lists/rust", "Entw&APw-rfe"]:
        client.create(f'"{folder}"')
    client.subscribe('"Lists/rust"')
    for number in range(first, first + count):
        folder = ["INBOX", "Lists/rust", "Entw&APw-rfe"][number % 3]
        text = f"{number}\r\n" * (30_000 if number % 10 == 0 else 20)
        octets = message(f"<{number}.backup@example.net>", subject=f"number {number}", text=text)
        status, answer = client.append(f'"{folder}"', r"(\Seen work)" if number % 2 else "",
                                       imaplib.Time2Internaldate(1650000000 + number), octets)
        assert status == "OK", answer
    client.select("INBOX")
    client.copy("1:3", "Archive")
    client.store("2", "+FLAGS", r"(\Deleted)")
    client.expunge()
    client.logout()
    suite.send(BOB)
    suite.wait_queue_empty()


def seen(suite):
    return {user: contents(suite.imap(user)) for user in [ALICE, BOB]}


def another(place, config=None, **more):
    """A suite with nothing in it, not started; its state directory is made by restore."""
    return Suite(config=config, **more)


def test_a_backup_comes_back_on_an_empty_machine(suite, place):
    fill(suite)
    before = seen(suite)
    keys = sorted(suite.json("dkim", "create", "example.test", "--selector", "s1").items())
    first = suite.json("backup", place / "backup")
    assert first["bodies"] == first["copied"] > 30 and first["damaged"] == []
    assert (place / "backup").stat().st_mode & 0o077 == 0
    assert suite.json("verify", place / "backup", "--scratch", place / "scratch")["restored"] is True
    assert not (place / "scratch").exists()
    target = another(place)
    try:
        refused = suite.run("restore", place / "backup", check=False)
        assert refused.returncode == 1 and "is running" in refused.stderr
        done = target.json("restore", place / "backup")
        assert done["bodies"] == first["bodies"]
        refused = target.run("restore", place / "backup", check=False)
        assert refused.returncode == 1 and "not empty" in refused.stderr
        target.start()
        assert seen(target) == before, "logins with the same passwords, and the same mail"
        assert target.json("dkim", "show", "example.test")[0]["selector"] == "s1" and keys
        # New mail does not disturb the old.
        target.send(ALICE)
        target.wait_messages(ALICE, len(before[ALICE]["folders"]["INBOX"]) + 1)
    finally:
        target.remove()


def test_only_new_bodies_are_copied_and_damage_is_found(suite, place):
    fill(suite, 30)
    first = suite.json("backup", place / "backup")
    fill(suite, 9, first=100)
    second = suite.json("backup", place / "backup")
    assert second["bodies"] == first["bodies"] + 10 and second["copied"] == 10
    assert first["generation"] != second["generation"]
    for generation in [first, second]:
        name = Path(generation["generation"]).name
        assert suite.json("verify", place / "backup", "--generation", name)["bodies"] == generation["bodies"]
    pack = sorted((place / "backup/bodies").glob("*.pack"))[0]
    octets = bytearray(pack.read_bytes())
    octets[len(octets) // 2] ^= 1
    pack.write_bytes(octets)
    result = suite.run("verify", place / "backup", check=False)
    assert result.returncode == 3 and "damaged" in result.stderr


def start(suite, *arguments):
    return subprocess.Popen([program(), "--dir", suite.dir, "--json", *map(str, arguments)], cwd="/",
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **suite._account())


def killed_until_done(suite, *arguments):
    """Kills it after ever longer times, until it ends by itself; how often it was killed."""
    killed, pause = 0, 0.01
    while True:
        process = start(suite, *arguments)
        try:
            _, errors = process.communicate(timeout=pause)
            # One that was killed behind its last step is done, and says so to the next.
            done = "restore" in arguments and b"not empty" in errors and not (suite.dir / "state/restore.json").exists()
            assert process.returncode == 0 or (done and killed), errors
            return killed
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            killed += 1
            pause *= 1.3


def test_killed_at_any_time_both_ways(suite, place):
    fill(suite, 60)
    before = seen(suite)
    assert killed_until_done(suite, "backup", place / "backup") >= 3
    complete = [path for path in (place / "backup").iterdir() if (path / "manifest.json").exists()]
    # One that was killed behind its last step is complete, and the next run makes another one.
    assert complete
    suite.run("verify", place / "backup")
    target = another(place)
    try:
        assert killed_until_done(target, "restore", place / "backup") >= 3
        target.start()
        assert seen(target) == before
    finally:
        target.remove()


def test_two_in_one_second_are_two(suite, place):
    generations = [suite.json("backup", place / "backup")["generation"] for _ in range(3)]
    assert len(set(generations)) == 3
    for generation in generations:
        suite.run("verify", place / "backup", "--generation", Path(generation).name)


def test_an_unfinished_generation_is_recognisable(suite, place):
    suite.json("backup", place / "backup")
    unfinished = place / "backup/20990101T000000Z"
    shutil.copytree(next((place / "backup").glob("2*Z")), unfinished)
    (unfinished / "manifest.json").unlink()
    unfinished.chmod(0o777)
    result = suite.run("verify", place / "backup", "--generation", unfinished.name, check=False)
    assert result.returncode == 3 and "unfinished" in result.stderr
    suite.run("verify", place / "backup")


def test_the_rows_are_of_one_moment_while_mail_comes(suite, place):
    """Mail is appended and expunged all the time; a restored store has no loose ends."""
    fill(suite, 20)
    stop = threading.Event()

    def busy():
        client = suite.imap(BOB)
        number = 0
        while not stop.is_set():
            number += 1
            octets = message(f"<{number}.busy@example.net>", text=f"{number}\r\n" * (9000 if number % 4 == 0 else 5))
            client.append("INBOX", r"(\Deleted)" if number % 3 else "", None, octets)
            if number % 9 == 0:
                client.select("INBOX")
                client.expunge()
                client.unselect()

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(3):
            suite.run("backup", place / "backup")
            time.sleep(1.1)
    finally:
        stop.set()
        thread.join()
    suite.run("verify", place / "backup", "--scratch", place / "scratch")
    target = another(place)
    try:
        target.run("restore", place / "backup")
        target.start()
        found = contents(target.imap(BOB))["folders"]["INBOX"]
        assert found and all(len(digest) == len(hashlib.sha256().hexdigest()) for _, _, digest in found)
    finally:
        target.remove()


@pytest.mark.parametrize("kind", [Postgres, MariaDb])
def test_from_sqlite_into_a_server_and_back(suite, place, kind):
    fill(suite, 30)
    before = seen(suite)
    suite.run("backup", place / "one")
    server = kind()
    target = back = None
    try:
        target = another(place, {"store": {"url": server.database("mail")},
                                 "authd": {"database": server.database("directory")},
                                 "blob": {"inline_max": 1000}})
        target.run("restore", place / "one")
        target.start()
        assert seen(target) == before
        target.run("fsck", "--bodies")
        target.run("fsck", "--repair")
        refused = another(place, {"store": target.config["store"]})
        result = refused.run("restore", place / "one", check=False)
        assert result.returncode == 1 and "not empty" in result.stderr
        refused.remove()
        target.run("backup", place / "two")
        back = another(place)
        back.run("restore", place / "two")
        back.start()
        assert seen(back) == before
        assert back.imap(ALICE, PASSWORD)
    finally:
        for one in filter(None, [target, back]):
            one.remove()
        server.remove()
