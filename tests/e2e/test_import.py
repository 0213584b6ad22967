"""posthouse import and export: from Maildirs, mbox files and a real Dovecot, killed in the middle, and back."""

import functools
import imaplib
import itertools
import mailbox
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from contents import contents
from peers import Dovecot
from suite import Suite, message, program

NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def suite():
    suite = Suite().start()
    suite.add_domain("example.test")
    yield suite
    suite.remove()


@pytest.fixture(scope="module")
def dovecot():
    server = Dovecot()
    yield server
    server.remove()


@pytest.fixture
def account(suite):
    """An account of this test's own."""
    return suite.add_account(f"user{next(NUMBERS)}@example.test")


@pytest.fixture
def place():
    """A folder that the suite's account can read and write."""
    folder = Path(tempfile.mkdtemp(prefix="ph-import-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@functools.lru_cache
def letter(number, size=200):
    text = f"Message {number}.\r\nFrom here on it is text.\r\n" + "x" * 70 * (size // 70) + "\r\n"
    return message(f"<{number}.import@example.net>", subject=f"number {number}", text=text)


def readable(folder):
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o777 if path.is_dir() else 0o666)


def maildir(folder, count=12):
    """A Maildir++ with folders, flags, keywords, a subscription and dates."""
    for name, flags in [("", "S"), (".Sent", "RS"), (".Arbeit.Entw&APw-rfe", "DFSa")]:
        for sub in ["cur", "new", "tmp"]:
            (folder / name / sub).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            octets = letter(f"{name}{number}").replace(b"\r\n", b"\n")
            path = folder / name / "cur" / f"{1700000000 + number}.M{number}.host,S={len(octets)}:2,{flags}"
            path.write_bytes(octets)
            os.utime(path, (1700000000 + number, 1700000000 + number))
    (folder / ".Arbeit.Entw&APw-rfe" / "dovecot-keywords").write_text("0 wichtig\n")
    (folder / "new" / "1800000000.M1.host").write_bytes(letter("new").replace(b"\r\n", b"\n"))
    (folder / "subscriptions").write_text("V\t2\n\nSent\n")
    readable(folder)


def test_a_maildir_comes_with_flags_dates_keywords_and_subscriptions(suite, account, place):
    maildir(place / "Maildir")
    plan = suite.json("import", "maildir", place / "Maildir", "--account", account, "--dry-run")
    assert {row["folder"]: row["source"] for row in plan} == {"INBOX": 13, "Sent": 12, "Arbeit/Entwürfe": 12}
    assert suite.messages(account) == []
    done = suite.json("import", "maildir", place / "Maildir", "--account", account)
    assert (done["imported"], done["verified"], done["failed"]) == (37, 37, 0)
    found = contents(suite.imap(account))
    assert len(found["folders"]["INBOX"]) == 13
    assert [flags for flags, _, _ in found["folders"]["Sent"]] == [("\\Answered", "\\Seen")] * 12
    drafts = found["folders"]["Arbeit/Entw&APw-rfe"]
    assert [date for _, date, _ in drafts] == [1700000000 + number for number in range(12)]
    assert drafts[0][0] == ("\\Draft", "\\Flagged", "\\Seen", "wichtig")
    assert "Sent" in found["subscribed"]
    # Once more: nothing is doubled, and only what is new comes.
    octets = letter("later").replace(b"\r\n", b"\n")
    (place / "Maildir/new/1900000000.M1.host").write_bytes(octets)
    (place / "Maildir/new/1900000000.M1.host").chmod(0o666)
    again = suite.json("import", "maildir", place / "Maildir", "--account", account)
    assert (again["imported"], again["verified"]) == (1, 1)
    assert len(suite.messages(account)) == 14


def test_names_that_differ_in_their_form_alone_are_one_mailbox(suite, account, place):
    """A Maildir from macOS has decomposed names, whether in UTF-8 or in modified UTF-7; mailboxes have composed ones."""
    root = place / "Maildir"
    maildir(root, 1)
    for number, folder in enumerate([".Bu\u0308cher", ".B\u00fccher", ".Bu&Awg-cher.2026"], 1):
        box = mailbox.Maildir(root / folder)
        box.add(letter(100 + number))
    readable(root)
    done = suite.json("import", "maildir", root, "--account", account)
    assert done["failed"] == 0
    found = contents(suite.imap(account))["folders"]
    assert len(found["B&APw-cher"]) == 2 and len(found["B&APw-cher/2026"]) == 1
    assert not any("&Awg-" in name for name in found)
    assert suite.json("import", "maildir", root, "--account", account)["imported"] == 0


def test_into_a_folder_and_messages_that_cannot_come(suite, account, place):
    maildir(place / "Maildir", 3)
    (place / "Maildir/cur/1.broken,S=999:2,").write_bytes(b"Subject: x\n\nshort\n")
    result = suite.run("import", "maildir", place / "Maildir", "--account", account, "--into", "Old", check=False)
    assert result.returncode == 1, result.stderr
    assert "1.broken,S=999: the file has" in result.stderr
    found = contents(suite.imap(account))["folders"]
    assert len(found["Old"]) == 4 and len(found["Old/Sent"]) == 3 and found["INBOX"] == []


@pytest.mark.parametrize("quoting", ["mboxrd", "mboxo"])
def test_an_mbox_that_python_wrote(suite, account, place, quoting):
    box = mailbox.mbox(place / "old")
    for number in range(5):
        one = mailbox.mboxMessage(letter(number).replace(b"\r\n", b"\n"))
        one.set_from("me@example.net", time.gmtime(1600000000 + number))
        one.set_flags("ROAF")
        box.add(one)
    box.close()
    readable(place)
    suite.run("import", "mbox", place / "old", "--account", account, "--quoting", quoting)
    found = contents(suite.imap(account))["folders"]["INBOX"]
    assert [(flags, date) for flags, date, _ in found] == [
        (("\\Answered", "\\Flagged", "\\Seen"), 1600000000 + number) for number in range(5)]
    assert sorted(suite.messages(account)) == sorted(letter(number) for number in range(5))


def fill(dovecot, user, count=30):
    client = dovecot.imap(user)
    for folder in ["Gesendet", "Lists/rust", "Entw&APw-rfe"]:
        client.create(f'"{folder}"')
    client.subscribe('"Lists/rust"')
    for folder in ["INBOX", "Gesendet", "Lists/rust", "Entw&APw-rfe"]:
        for number in range(count):
            flags = r"(\Seen $Forwarded)" if number % 2 else r"(\Flagged)"
            size = 200_000 if number == 7 else 300
            status, text = client.append(f'"{folder}"', flags, imaplib.Time2Internaldate(1650000000 + number),
                                         letter(f"{folder}{number}", size))
            assert status == "OK", text
    client.logout()


@pytest.mark.parametrize("tls", ["implicit", "starttls", "none"])
def test_another_server_by_imap(suite, dovecot, account, tls):
    user = f"user{tls}"
    fill(dovecot, user)
    port = dovecot.tls_port if tls == "implicit" else dovecot.port
    done = suite.json("import", "imap", f"127.0.0.1:{port}", "--user", user, "--tls", tls, "--ca", dovecot.certificate,
                      "--password-file", dovecot.password_file, "--account", account)
    assert (done["imported"], done["verified"], done["failed"]) == (120, 120, 0)
    theirs, ours = contents(dovecot.imap(user)), contents(suite.imap(account))
    assert ours["folders"]["Sent"] == theirs["folders"]["Gesendet"], "the special use finds our folder"
    for folder in ["INBOX", "Lists/rust", "Entw&APw-rfe"]:
        assert ours["folders"][folder] == theirs["folders"][folder]
    assert "Lists/rust" in ours["subscribed"]


def test_a_wrong_certificate_and_a_wrong_password_are_told(suite, dovecot, account):
    base = ["import", "imap", f"127.0.0.1:{dovecot.tls_port}", "--user", "x", "--account", account]
    result = suite.run(*base, "--password-file", dovecot.password_file, check=False)
    assert result.returncode == 1 and "--ca" in result.stderr
    result = suite.run(*base, "--ca", dovecot.certificate, stdin="wrong\n", check=False)
    assert result.returncode == 1 and "the login of x" in result.stderr


def start(suite, *arguments):
    return subprocess.Popen([program(), "--dir", suite.dir, "--json", *map(str, arguments)], cwd="/",
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **suite._account())


@pytest.mark.parametrize("source", ["imap", "maildir"])
def test_killed_again_and_again_nothing_is_doubled_or_lost(suite, dovecot, account, place, source):
    if source == "imap":
        fill(dovecot, "killed", 250)
        arguments = ["import", "imap", f"127.0.0.1:{dovecot.port}", "--user", "killed", "--tls", "none",
                     "--password-file", dovecot.password_file, "--account", account]
    else:
        maildir(place / "Maildir", 1500)
        arguments = ["import", "maildir", place / "Maildir", "--account", account]
    killed = 0
    for pause in [0.05, 0.07, 0.09, 0.11, 0.13, 0.16, 0.2]:
        process = start(suite, *arguments)
        time.sleep(pause)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed >= 3, "the import was too quick to be killed"
    # stored dies in the middle, too: the import waits for it.
    process = start(suite, *arguments)
    time.sleep(0.2)
    suite.kill("stored")
    assert process.wait(90) == 0
    suite.wait_up()
    ours = contents(suite.imap(account))["folders"]
    if source == "imap":
        theirs = contents(dovecot.imap("killed"))["folders"]
        assert ours["INBOX"] == theirs["INBOX"] and ours["Sent"] == theirs["Gesendet"]
        assert ours["Lists/rust"] == theirs["Lists/rust"]
    else:
        dates = [date for _, date, _ in ours["Sent"]]
        assert dates == [1700000000 + number for number in range(1500)], "none lost, none doubled, in order"
        assert len(ours["INBOX"]) == 1501


@pytest.mark.parametrize("form", ["maildir", "mbox"])
def test_an_export_comes_back_as_it_was(suite, dovecot, place, form):
    one, two = suite.add_account(f"{form}1@example.test"), suite.add_account(f"{form}2@example.test")
    maildir(place / "source", 10)
    suite.run("import", "maildir", place / "source", "--account", one)
    client = suite.imap(one)
    client.create('"Listen/v1.2"')
    client.subscribe('"Listen/v1.2"')
    client.append('"Listen/v1.2"', r"(\Seen $Label1 Zwei)", imaplib.Time2Internaldate(1600000000), letter("dotted", 100_000))
    done = suite.json("export", "account", one, place / "out", "--format", form)
    assert done["messages"] == 32 and done["notes"] == []
    assert suite.run("export", "account", one, place / "out", check=False).returncode == 1, "it does not overwrite"
    suite.run("import", form, place / "out", "--account", two)
    before, after = contents(client), contents(suite.imap(two))
    assert after == before
    if form == "maildir":
        dovecot.adopt("exported", place / "out")
        theirs = contents(dovecot.imap("exported"))["folders"]
        for folder in ["INBOX", "Sent", "Arbeit/Entw&APw-rfe"]:
            assert theirs[folder] == before["folders"][folder]


def test_a_group_gets_its_own_mailboxes(suite, place):
    member = suite.add_account("member@example.test")
    suite.run("group", "add", "team@example.test", "--member", member, "--shared")
    assert suite.json("group", "show", "team@example.test")["shared"] is True
    maildir(place / "Maildir", 2)
    done = suite.json("import", "maildir", place / "Maildir", "--account", "team@example.test")
    assert done["imported"] == 7
