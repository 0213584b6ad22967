"""POP3 as mail programs speak it."""

import email
import email.policy
import imaplib
import poplib
import shutil
import socket
import subprocess
from email.header import decode_header, make_header

import pytest

from servers import Dovecot
from suite import PASSWORD, Suite, anybody, message, wait_for


@pytest.fixture(scope="module")
def suite():
    suite = Suite().start()
    suite.add_domain("example.test")
    yield suite
    suite.remove()


@pytest.fixture
def account(suite, request):
    name = f"{request.node.name.split('[')[0].replace('_', '-')[:50]}@example.test"
    return suite.add_account(name)


def connect(suite, account, password=PASSWORD):
    client = poplib.POP3_SSL(*suite.address("pop3s"), context=anybody(), timeout=30)
    client.user(account)
    client.pass_(password)
    return client


def test_a_maildrop_is_read_and_emptied(suite, account):
    for number in range(3):
        # One after the other: deliveries that wait together may change places.
        suite.send(account, subject=f"letter {number}")
        suite.wait_messages(account, number + 1)
    client = connect(suite, account)
    count, octets = client.stat()
    sizes = [int(line.split()[1]) for line in client.list()[1]]
    assert count == 3 and sum(sizes) == octets
    unique = [line.split()[1] for line in client.uidl()[1]]
    assert len(set(unique)) == 3
    _, lines, got = client.retr(1)
    raw = b"\r\n".join(lines) + b"\r\n"
    assert len(raw) == sizes[0] and raw == suite.messages(account)[0]
    _, top, _ = client.top(2, 0)
    assert top[-1] == b"" and any(line == b"Subject: letter 1" for line in top)
    client.dele(1)
    with pytest.raises(poplib.error_proto):
        client.retr(1)
    client.rset()
    assert client.stat()[0] == 3
    client.dele(2)
    client.quit()
    # What is left keeps its unique ids; reading leaves it on the server.
    client = connect(suite, account)
    left = [line.split()[1] for line in client.uidl()[1]]
    assert left == [unique[0], unique[2]]
    client.quit()
    assert len(suite.messages(account)) == 2


def test_without_quit_nothing_is_removed(suite, account):
    suite.send(account)
    suite.wait_messages(account, 1)
    client = connect(suite, account)
    client.dele(1)
    client.close()
    wait_for(lambda: _opens(suite, account), "the maildrop is free again")
    assert len(suite.messages(account)) == 1


def _opens(suite, account):
    try:
        connect(suite, account).quit()
        return True
    except poplib.error_proto as error:
        assert b"[IN-USE]" in error.args[0], error
        return False


def test_one_session_at_a_time_also_after_a_kill(suite, account):
    first = connect(suite, account)
    assert not _opens(suite, account)
    first.quit()
    assert _opens(suite, account)
    connect(suite, account)
    suite.kill("pop3d")
    suite.wait_up()
    wait_for(lambda: _opens(suite, account), "the maildrop is free after a kill")


def test_what_others_do_meanwhile(suite, account):
    for number in range(3):
        # One after the other: deliveries that wait together may change places.
        suite.send(account, subject=f"letter {number}")
        suite.wait_messages(account, number + 1)
    client = connect(suite, account)
    imap = suite.imap(account)
    imap.select("INBOX")
    imap.store("2", "+FLAGS", "\\Deleted")
    imap.expunge()
    imap.logout()
    suite.send(account, subject="later")
    suite.wait_messages(account, 3)
    assert client.stat()[0] == 3
    client.dele(1)
    client.dele(2)
    client.quit()
    subjects = b"".join(suite.messages(account))
    assert b"letter 2" in subjects and b"later" in subjects and b"letter 0" not in subjects


def test_odd_messages_come_as_they_are(suite, account):
    odd = [
        b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n",
        b"Subject: large\r\n\r\n" + b"A line of a large message, with a dot\r\n.\r\n" * 10_000,
        b"\r\nonly a body\r\n",
    ]
    imap = suite.imap(account)
    for octets in odd:
        assert imap.append("INBOX", None, None, octets)[0] == "OK"
    imap.logout()
    client = connect(suite, account)
    for number, octets in enumerate(odd, 1):
        assert b"\r\n".join(client.retr(number)[1]) + b"\r\n" == octets
    client.quit()


def test_stls_and_capabilities(suite, account):
    client = poplib.POP3(*suite.address("pop3"), timeout=30)
    offered = client.capa()
    for name in ["TOP", "UIDL", "PIPELINING", "STLS", "SASL", "RESP-CODES", "AUTH-RESP-CODE", "LANG", "IMPLEMENTATION", "USER"]:
        assert name in offered, (name, offered)
    assert offered["EXPIRE"] == ["NEVER"] and offered["UTF8"] == ["USER"]
    client.stls(anybody())
    assert "STLS" not in client.capa() and "SCRAM-SHA-256-PLUS" in client.capa()["SASL"]
    client.user(account)
    client.pass_(PASSWORD)
    assert client.stat() == (0, 0)
    client.quit()


def test_what_is_sent_before_tls_counts_no_more(suite, account):
    raw = socket.create_connection(suite.address("pop3"), timeout=30)
    stream = raw.makefile("rb")
    assert stream.readline().startswith(b"+OK")
    raw.sendall(b"STLS\r\nCAPA\r\nNOOP\r\n")
    assert stream.readline().startswith(b"+OK")
    under = anybody().wrap_socket(raw, server_hostname="mail.example.test")
    under.sendall(b"NOOP\r\n")
    answer = under.recv(200)
    assert answer.startswith(b"-ERR") and answer.count(b"\r\n") == 1
    under.close()


def test_wrong_passwords_end_the_session(suite, account):
    client = poplib.POP3_SSL(*suite.address("pop3s"), context=anybody(), timeout=60)
    for turn in range(3):
        client.user(account)
        with pytest.raises(poplib.error_proto, match="AUTH"):
            client.pass_(f"wrong {turn}")
    with pytest.raises((poplib.error_proto, OSError)):
        client.noop()


def test_curl(suite, account):
    curl = shutil.which("curl")
    if not curl:
        pytest.skip("curl is not installed (tests/setup)")
    sent = suite.send(account, body=message("<by-curl@example.net>", to=account))
    assert sent
    suite.wait_messages(account, 1)
    host, port = suite.address("pop3s")
    result = subprocess.run(
        [curl, "--silent", "--insecure", "--user", f"{account}:{PASSWORD}", f"pop3s://{host}:{port}/1"],
        capture_output=True, timeout=60, check=True,
    )
    assert b"<by-curl@example.net>" in result.stdout


INTERNATIONAL = (
    "From: Jøran <jøran@blåbær.example>\r\nTo: Åse <ase@example.test>\r\nSubject: Grüße\r\n"
    "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nÆbler.\r\n.\r\n{more}"
)


@pytest.mark.parametrize("lines", [0, 40_000], ids=["short", "in pieces"])
def test_headers_are_ascii_until_utf8_is_said(suite, request, lines):
    """RFC 6856 4 and RFC 6858: who knows ASCII only gets a surrogate with the same body."""
    account = suite.add_account(f"international-{lines}@example.test")
    octets = INTERNATIONAL.format(more="Ein Blåbær mehr.\r\n" * lines).encode()
    imap = suite.imap(account)
    assert imap.append("INBOX", None, None, octets)[0] == "OK"
    imap.logout()
    client = poplib.POP3_SSL(*suite.address("pop3s"), context=anybody(), timeout=30)
    client.utf8()
    client.user(account)
    client.pass_(PASSWORD)
    assert b"\r\n".join(client.retr(1)[1]) + b"\r\n" == octets
    assert client.stat() == (1, len(octets))
    client.quit()
    client = connect(suite, account)
    said, got, _ = client.retr(1)
    shown = b"\r\n".join(got) + b"\r\n"
    assert said == b"+OK %d octets" % len(shown)
    header, _, body = shown.partition(b"\r\n\r\n")
    assert header.isascii() and body == octets.partition(b"\r\n\r\n")[2]
    read = email.message_from_bytes(shown, policy=email.policy.default)
    assert read["Subject"] == "Grüße" and read["From"].addresses[0].addr_spec == "invalid@internationalized-address.invalid"
    # The policy puts a space between two words of a phrase, which RFC 2047 6.2 does not.
    raw = email.message_from_bytes(shown)["From"].partition("<invalid")[0]
    assert str(make_header(decode_header(raw))).strip() == "Jøran <jøran@blåbær.example>"
    assert read["To"].addresses[0].display_name == "Åse" and read["To"].addresses[0].addr_spec == "ase@example.test"
    assert b"\r\n".join(client.top(1, 0)[1]).rstrip() == header
    with pytest.raises(poplib.error_proto):
        client.utf8()
    client.quit()


def test_unique_ids_survive_a_journey(suite, account):
    for number in range(2):
        suite.send(account, subject=f"letter {number}")
    suite.wait_messages(account, 2)
    client = connect(suite, account)
    before = {line.split()[1] for line in client.uidl()[1]}
    client.quit()
    imap = suite.imap(account)
    imap.create("Elsewhere")
    for box, other in [("INBOX", "Elsewhere"), ("Elsewhere", "INBOX")]:
        imap.select(box)
        assert imap.uid("MOVE", "1:*", other)[0] == "OK"
        client = connect(suite, account)
        here = {line.split()[1] for line in client.uidl()[1]}
        client.quit()
        assert here == (set() if other == "Elsewhere" else before)
    imap.logout()


def test_counts_as_dovecot_counts_them(suite, account):
    """STAT, LIST, RETR and TOP, octet for octet."""
    letters = [
        b"Subject: short\r\n\r\nbody\r\n",
        b"Subject: dots\r\n\r\n.\r\n..\r\n.x\r\n\r\n\r\n",
        b"Subject: no body\r\n\r\n",
        b"Subject: only a header\r\nTo: a@example.test\r\n",
        b"\r\nonly a body\r\n",
        b"Subject: eight bits\r\n\r\n\xe4\xff\r\n",
        b"Subject: long\r\n\r\n" + b"x" * 2000 + b"\r\n" + b"A line.\r\n" * 30_000,
        b"Subject: folded\r\n\tand more\r\nX: y\r\n\r\n one\r\n \r\nthree\r\n",
        b"Subject: no end\r\n\r\nthe last line has none",
    ]
    dovecot = Dovecot([account], PASSWORD, pop3=True)
    try:
        there = imaplib.IMAP4("127.0.0.1", dovecot.port, timeout=60)
        there.login(account, PASSWORD)
        for imap in (suite.imap(account), there):
            for octets in letters:
                assert imap.append("INBOX", None, None, octets)[0] == "OK"
            imap.logout()
        theirs = poplib.POP3("127.0.0.1", dovecot.pop3_port, timeout=30)
        theirs.user(account)
        theirs.pass_(PASSWORD)
        both = [connect(suite, account), theirs]
        assert both[0].stat() == both[1].stat() == (len(letters), sum(map(len, letters)))
        assert both[0].list()[1] == both[1].list()[1]
        for number, octets in enumerate(letters, 1):
            ours, other = (client.retr(number)[1:] for client in both)
            assert ours == other, number
            assert ours[1] == len(octets) + (0 if octets.endswith(b"\n") else 2)
            for lines in [0, 1, 2, 5]:
                ours, other = (client.top(number, lines)[1:] for client in both)
                assert ours == other, (number, lines)
        for client in both:
            client.quit()
    finally:
        dovecot.remove()
