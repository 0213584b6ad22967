"""Sieve scripts at delivery, as their users write them."""

import sqlite3
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest

from suite import Suite, message, wait_for


@pytest.fixture(scope="module")
def suite():
    suite = Suite().start()
    suite.add_domain("example.test")
    suite.add_account("sender@example.test")
    yield suite
    suite.remove()


@pytest.fixture
def account(suite, request):
    name = f"{request.node.name.split('[')[0].replace('_', '-')[:50]}@example.test"
    return suite.add_account(name)


def activate(suite, account, text):
    script = suite.dir / "script.sieve"
    script.write_text(textwrap.dedent(text).strip() + "\n")
    script.chmod(0o644)
    suite.run("script", "put", account, "main", script)
    suite.run("script", "activate", account, "main")


def send(suite, account, subject, sender="sender@example.net", **more):
    return suite.send(account, subject=subject, sender=sender, **more)


def folder(suite, account, name, count):
    return suite.wait_messages(account, count, name)


def test_fileinto_flags_and_create(suite, account):
    activate(suite, account, """
        require ["fileinto", "mailbox", "imap4flags"];
        if header :contains "subject" "invoice" {
            fileinto :create :flags ["\\\\Seen", "$Paid"] "Money/Invoices";
        }
    """)
    send(suite, account, "an invoice")
    send(suite, account, "a letter")
    assert b"an invoice" in folder(suite, account, "Money/Invoices", 1)[0]
    assert b"a letter" in folder(suite, account, "INBOX", 1)[0]
    imap = suite.imap(account)
    imap.select("Money/Invoices", readonly=True)
    flags = imap.fetch("1", "(FLAGS)")[1][0]
    assert b"\\Seen" in flags and b"$Paid" in flags
    assert any(b"Money/Invoices" in line for line in imap.lsub()[1])
    imap.logout()


def test_a_name_is_found_in_whatever_form_a_script_has_it(suite, account):
    imap = suite.imap(account)
    imap.create("B&APw-cher")
    imap.logout()
    activate(suite, account, """
        require ["fileinto", "mailbox"];
        if mailboxexists "Bu\u0308cher" { fileinto "Bu\u0308cher"; }
        fileinto :create "Bu\u0308cher/Neu";
    """)
    send(suite, account, "a book")
    folder(suite, account, "B&APw-cher", 1)
    folder(suite, account, "B&APw-cher/Neu", 1)
    assert suite.messages(account) == []


def test_copies_and_keep(suite, account):
    activate(suite, account, """
        require ["fileinto", "copy", "mailbox"];
        fileinto :copy :create "One";
        fileinto :copy :create "Two";
    """)
    send(suite, account, "three places")
    for name in ["One", "Two", "INBOX"]:
        folder(suite, account, name, 1)


def test_discard_and_reject(suite, account):
    activate(suite, account, """
        require ["reject"];
        if header :is "subject" "noise" { discard; }
        elsif header :is "subject" "unwanted" { reject "I do not want this."; }
    """)
    send(suite, account, "noise")
    send(suite, account, "unwanted", sender="sender@example.test")
    send(suite, account, "wanted")
    report = folder(suite, "sender@example.test", "INBOX", 1)[0]
    assert b"I do not want this." in report and b"multipart/report" in report
    assert b"Subject: wanted" in folder(suite, account, "INBOX", 1)[0]


def test_vacation_answers_once(suite, account):
    friend = suite.add_account("friend@example.test")
    activate(suite, account, """
        require ["vacation"];
        vacation :days 3 :subject "Away" "Back on Monday.";
    """)
    send(suite, account, "hello", sender=friend)
    answer = folder(suite, friend, "INBOX", 1)[0]
    assert b"Back on Monday." in answer and b"Auto-Submitted: auto-replied" in answer
    send(suite, account, "hello again", sender=friend)
    folder(suite, account, "INBOX", 2)
    suite.wait_queue_empty()
    folder(suite, friend, "INBOX", 1)
    # No machine is answered, and nobody who is not known.
    send(suite, account, "list", sender=friend, body=message("<l@example.net>", account).replace(
        b"Subject:", b"List-Id: <x.example.net>\r\nSubject:"))
    folder(suite, account, "INBOX", 3)
    suite.wait_queue_empty()
    folder(suite, friend, "INBOX", 1)


def test_redirect_here_and_with_a_copy(suite, account):
    other = suite.add_account("other@example.test")
    activate(suite, account, f"""
        require ["copy"];
        redirect :copy "{other}";
    """)
    send(suite, account, "sent on")
    raw = folder(suite, other, "INBOX", 1)[0]
    assert f"Delivered-To: {account}".encode() in raw and b"sent on" in raw
    folder(suite, account, "INBOX", 1)


def test_editheader_changes_what_is_stored(suite, account):
    activate(suite, account, """
        require ["editheader", "variables"];
        if header :matches "subject" "*" { deleteheader "subject"; addheader "Subject" "[team] ${1}"; }
        addheader "X-Rule" "yes";
    """)
    send(suite, account, "plain")
    raw = folder(suite, account, "INBOX", 1)[0]
    assert b"Subject: [team] plain" in raw and b"X-Rule: yes" in raw and raw.count(b"Subject:") == 1


def test_duplicates_are_told_apart(suite, account):
    activate(suite, account, """
        require ["duplicate", "fileinto", "mailbox"];
        if duplicate { fileinto :create "Twice"; }
    """)
    suite.send(account, body=message("<same@example.net>", account))
    folder(suite, account, "INBOX", 1)
    suite.wait_queue_empty()
    suite.send(account, body=message("<same@example.net>", account))
    folder(suite, account, "Twice", 1)


def test_of_copies_at_one_moment_one_is_the_first(suite, account):
    """Also over several accounts, and for the answers of vacation."""
    sender = suite.add_account("twin-sender@example.test")
    activate(suite, account, """
        require ["duplicate", "vacation"];
        if duplicate { discard; stop; }
        vacation "I am away.";
    """)
    rounds, copies = 5, 8
    with ThreadPoolExecutor(copies) as pool:
        for number in range(rounds):
            body = message(f"<twin-{number}@example.net>", to=account, sender=sender)
            list(pool.map(lambda _: suite.send(account, body=body, sender=sender), range(copies)))
    suite.wait_messages(account, rounds)
    suite.wait_queue_empty()
    assert len(suite.messages(account)) == rounds
    assert len(suite.wait_messages(sender, 1)) == 1


def test_what_does_not_compile_is_refused_with_its_place(suite, account):
    script = suite.dir / "bad.sieve"
    script.write_text('require "fileinto";\nif true {\n  fileinto;\n}\n')
    script.chmod(0o644)
    result = suite.run("script", "put", account, "bad", script, check=False)
    assert result.returncode != 0 and "line 3" in result.stdout + result.stderr


@pytest.mark.parametrize(("column", "value"), [("content", b"if {"), ("hash", b"short")], ids=["text", "row"])
def test_a_script_that_cannot_be_used_keeps_the_mail(suite, column, value):
    """Neither is what PUTSCRIPT lets in: an older program wrote it, or the store is damaged."""
    account = suite.add_account(f"unusable-{column}@example.test")
    activate(suite, account, "discard;")
    with sqlite3.connect(suite.dir / "state" / "store" / "mail.db", timeout=30) as db:
        owner = db.execute("SELECT account FROM owner WHERE name = ?", (account,)).fetchone()[0]
        assert db.execute(f"UPDATE script SET {column} = ? WHERE account = ?", (value, owner)).rowcount == 1
    send(suite, account, "still here")
    folder(suite, account, "INBOX", 1)
    assert "mail is kept" in suite.log.read_text()


def test_a_script_that_runs_away_keeps_the_mail(suite, account):
    many = "\n".join('if header :contains "x" "y" { stop; }' for _ in range(40))
    activate(suite, account, 'require ["foreverypart", "mime"];\nforeverypart {\n' + many + "\n}\ndiscard;\n")
    parts = b"".join(b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n" for _ in range(900))
    body = (
        b"From: <a@example.net>\r\nSubject: many parts\r\nMIME-Version: 1.0\r\n"
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + parts + b"--b--\r\n"
    )
    suite.send(account, body=body)
    assert b"many parts" in folder(suite, account, "INBOX", 1)[0]


def test_a_killed_deliverd_neither_doubles_nor_loses(suite, account):
    activate(suite, account, """
        require ["fileinto", "copy", "mailbox"];
        fileinto :copy :create "Copies";
    """)
    for number in range(30):
        send(suite, account, f"letter {number}")
        if number % 10 == 5:
            suite.kill("deliverd")
    wait_for(lambda: len(suite.messages(account)) >= 30, "all letters", 60)
    suite.wait_queue_empty()
    for name in ["INBOX", "Copies"]:
        subjects = sorted(line for raw in suite.messages(account, name) for line in raw.split(b"\r\n") if line.startswith(b"Subject:"))
        assert len(subjects) == 30 and len(set(subjects)) == 30, name
