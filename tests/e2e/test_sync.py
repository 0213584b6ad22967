"""A full synchroniser between this suite and Dovecot, both ways: afterwards both sides are the same."""

import hashlib
import imaplib
import os
import re
import shutil
import subprocess
import ssl
import time

import pytest

from servers import Dovecot
from suite import PASSWORD, Suite, anybody

ACCOUNT = "alice@example.test"
FOLDERS = ["INBOX", "Projects", "Projects/2026", "Entw&APw-rfe", "Work &- play"]

DIFFICULT = {
    "plain": b"Subject: plain\r\n\r\nJust text.\r\n",
    "no header": b"\r\nA body without any header.\r\n",
    "header only": b"Subject: nothing below\r\nFrom: a@example.net\r\n\r\n",
    "no end of line": b"Subject: cut\r\n\r\nThe last line has no end",
    "dots": b"Subject: dots\r\n\r\n.\r\n..\r\n.leading\r\nFrom here\r\n",
    "eight bit": "Subject: Grüße\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nÄöü ß €\r\n".encode(),
    "latin": b"Subject: =?iso-8859-1?Q?Gr=FC=DFe?=\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\n\xc4\xf6\xfc\r\n",
    "raw header": b"Subject: Gr\xfc\xdfe \xc4\xe3\xba\xc3\r\nFrom: \xd6 <a@example.net>\r\nX-\xe4: \xff\xfe\r\n\r\n\xc4\r\n",
    "folded": b"Subject: a\r\n\tfolded\r\n subject\r\nTo: (comment) \"A, B\" <a@example.net>,\r\n group: b@example.net, c@example.net;\r\n\r\nx\r\n",
    "long line": b"Subject: long\r\n\r\n" + b"0123456789" * 500 + b"\r\n",
    "nested": (
        b"Subject: nested\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"a b\"\r\n\r\npreamble\r\n--a b\r\n"
        b"Content-Type: message/rfc822\r\n\r\nSubject: inner\r\nContent-Type: multipart/alternative; boundary=c\r\n\r\n"
        b"--c\r\n\r\none\r\n--c\r\nContent-Type: text/html\r\n\r\n<p>two</p>\r\n--c--\r\n\r\n--a b\r\n"
        b"Content-Type: application/octet-stream; name*=utf-8''%e2%82%ac.bin\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment\r\n\r\nAAECAwQF\r\n--a b--\r\nepilogue\r\n"
    ),
    "unclosed": b"Subject: unclosed\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\nno end\r\n",
    "large": b"Subject: large\r\n\r\n" + b"A line of a large message.\r\n" * 20_000,
}


@pytest.fixture(scope="module")
def sides():
    suite = Suite().start()
    suite.add_domain("example.test")
    suite.add_account(ACCOUNT)
    dovecot = Dovecot([ACCOUNT], PASSWORD)
    yield suite, dovecot
    dovecot.remove()
    suite.remove()


def imap_of(side):
    if isinstance(side, Suite):
        return side.imap(ACCOUNT)
    client = imaplib.IMAP4("127.0.0.1", side.port, timeout=60)
    client.login(ACCOUNT, PASSWORD)
    return client


def contents(side):
    """Every message of every folder as (hash, date, flags)."""
    client = imap_of(side)
    found = {}
    _, folders = client.list()
    names = [re.match(rb'.* "/" (.*)$', line).group(1).decode().strip('"') for line in folders]
    for name in names:
        if client.select(f'"{name}"', readonly=True)[1] == [b"0"]:
            found[name] = []
            continue
        _, lines = client.fetch("1:*", "(FLAGS INTERNALDATE BODY.PEEK[])")
        messages = []
        for line in lines:
            if not isinstance(line, tuple):
                continue
            flags = re.search(rb"FLAGS \(([^)]*)\)", line[0]).group(1).split()
            date = time.mktime(imaplib.Internaldate2tuple(line[0]))
            flags = sorted(flag.decode() for flag in flags if flag != b"\\Recent")
            messages.append((hashlib.sha256(unmarked(line[1])).hexdigest(), date, tuple(flags)))
        found[name] = sorted(messages)
    client.logout()
    return found


def unmarked(octets):
    """Without the header field with which mbsync finds its own messages again."""
    return re.sub(rb"(?m)^X-TUID: [^\r]*\r\n", b"", octets, count=1)


def mbsync(sides, folder):
    suite, dovecot = sides
    program = shutil.which("mbsync")
    if not program:
        pytest.skip("isync is not installed (tests/setup)")
    host, port = suite.address("imaps")
    trusted = folder / "certificate.pem"
    trusted.write_text(ssl.get_server_certificate((host, port)))
    (folder / "state").mkdir(exist_ok=True)
    config = folder / "mbsyncrc"
    config.write_text(f"""
IMAPAccount here
Host {host}
Port {port}
User {ACCOUNT}
Pass "{PASSWORD}"
SSLType IMAPS
CertificateFile {trusted}

IMAPAccount there
Host 127.0.0.1
Port {dovecot.port}
User {ACCOUNT}
Pass "{PASSWORD}"
SSLType None
AuthMechs LOGIN

IMAPStore here
Account here

IMAPStore there
Account there

Channel all
Far :here:
Near :there:
Patterns *
Create Both
Expunge Both
Sync All
CopyArrivalDate yes
SyncState {folder}/state/
""")
    result = subprocess.run(
        [program, "--config", config, "--all"], capture_output=True, text=True, timeout=300,
        env={**os.environ, "HOME": str(folder)},
    )
    assert result.returncode == 0, result.stdout + result.stderr


def fill(side, names, start):
    """Messages of all kinds in all folders, with flags and dates."""
    client = imap_of(side)
    kinds = [("", ()), ("\\Seen", ()), ("\\Seen \\Answered", ()), ("\\Flagged", ()), ("\\Draft", ())]
    for folder in FOLDERS:
        client.create(f'"{folder}"')
        for at, name in enumerate(names):
            flags = kinds[at % len(kinds)][0]
            date = imaplib.Time2Internaldate(start + at * 86_461)
            octets = DIFFICULT[name]
            if octets.startswith(b"Subject"):
                octets = b"X-Side: %s\r\n" % folder.encode() + octets
            status, said = client.append(f'"{folder}"', f"({flags})", date, octets)
            assert status == "OK", (name, said)
    client.logout()


def change(side, subject, flags, expunge):
    client = imap_of(side)
    client.select("INBOX")
    _, (found,) = client.search(None, "SUBJECT", f'"{subject}"')
    client.store(found.split()[0].decode(), "+FLAGS", flags)
    if expunge:
        client.expunge()
    client.logout()


def test_mbsync_makes_both_sides_the_same_and_keeps_them_so(sides, tmp_path):
    suite, dovecot = sides
    names = list(DIFFICULT)
    fill(suite, names[::2], 1_600_000_000)
    fill(dovecot, names[1::2], 1_700_000_000)
    mbsync(sides, tmp_path)
    ours, theirs = contents(suite), contents(dovecot)
    assert set(FOLDERS) <= set(ours)
    for folder in sorted(set(ours) | set(theirs)):
        assert ours.get(folder, []) == theirs.get(folder, []), folder
    assert all(len(ours[folder]) == len(DIFFICULT) for folder in FOLDERS)

    # Changes on both sides: flags, removals, new mail, a folder.
    change(suite, "plain", "\\Flagged", False)
    change(dovecot, "long", "\\Answered", False)
    change(suite, "dots", "\\Deleted", True)
    change(dovecot, "large", "\\Deleted", True)
    client = imap_of(suite)
    client.create("New")
    client.append("New", "(\\Seen)", imaplib.Time2Internaldate(1_500_000_000), DIFFICULT["nested"])
    client.logout()
    mbsync(sides, tmp_path)
    ours, theirs = contents(suite), contents(dovecot)
    for folder in sorted(set(ours) | set(theirs)):
        assert ours.get(folder, []) == theirs.get(folder, []), folder
    assert len(ours["INBOX"]) == len(DIFFICULT) - 2 and len(theirs["New"]) == 1

    # Nothing changed: a third run changes nothing.
    mbsync(sides, tmp_path)
    assert contents(suite) == ours and contents(dovecot) == theirs
