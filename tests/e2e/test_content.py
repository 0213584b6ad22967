"""What is sent is what is read: any octets, any size."""

import random

import pytest

from suite import body_of, message

BODIES = {
    "empty": b"",
    "every octet but the line ends": bytes(o for o in range(256) if o not in (10, 13)) + b"\r\n",
    "dots": b".\r\n..\r\n...\r\n.x\r\n\r\n.\r\n",
    "no line end at the end": b"one\r\ntwo",
    "blank lines": b"\r\n\r\n\r\n",
    "long line": b"x" * 20_000 + b"\r\n",
    "8 bit": "Grüße, 你好, привет\r\n".encode() * 10,
    "iso-8859-1": "Grüße\r\n".encode("latin-1"),
    "broken mime": b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b--\r\n--b",
    "from lines": b"From the start\r\n>From\r\n",
    "spaces at line ends": b"a \r\n\t\r\n  \r\n",
}


@pytest.mark.parametrize("name", BODIES)
def test_bodies_come_back_bit_for_bit(shared, account, name):
    body = BODIES[name]
    shared.send(account, b"Subject: octets\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" + body)
    (mail,) = shared.wait_messages(account, 1)
    # SMTP sends whole lines: one that has no end gets it.
    expected = body if body.endswith(b"\r\n") or not body else body + b"\r\n"
    assert body_of(mail) == expected


def test_random_octets_come_back_bit_for_bit(shared, account):
    dice = random.Random(7)
    bodies = []
    for size in (1, 10, 1000, 30_000, 65_535, 65_536, 65_537, 200_000):
        octets = bytes(o if o not in (10, 13) else 32 for o in dice.randbytes(size))
        lines = [octets[at:at + 900] for at in range(0, size, 900)]
        bodies.append(b"\r\n".join(lines) + b"\r\n")
    for number, body in enumerate(bodies):
        shared.send(account, f"Subject: {number}\r\n\r\n".encode() + body)
        shared.wait_messages(account, number + 1)
    for mail, body in zip(shared.messages(account), bodies):
        assert body_of(mail) == body


def test_appended_octets_come_back_bit_for_bit(shared, account):
    """IMAP literals may hold what SMTP lines cannot: lone line ends too."""
    octets = b"Subject: raw\r\n\r\n" + bytes(o for o in range(1, 256)) * 10 + b"\n\r lone \r and \n"
    client = shared.imap(account)
    # imaplib would repair the line ends.
    client.literal = octets
    status, text = client._simple_command("APPEND", "INBOX")
    assert status == "OK", text
    client.select("INBOX")
    _, ((_, got), *_rest) = client.fetch("1", "(BODY.PEEK[])")
    assert got == octets
    _, (size,) = client.fetch("1", "(RFC822.SIZE)")
    assert str(len(octets)).encode() in size
    client.logout()


def test_eight_megabytes(shared, account):
    line = b"0123456789abcdef" * 4 + b"\r\n"
    body = line * (8 * 1024 * 1024 // len(line))
    shared.send(account, message("<big@example.net>", to=account) + body)
    (mail,) = shared.wait_messages(account, 1, seconds=60)
    assert mail.endswith(body[-100_000:]) and body in mail
    client = shared.imap(account)
    client.select("INBOX")
    _, ((_, part), *_rest) = client.fetch("1", "(BODY.PEEK[TEXT]<4000000.1000>)")
    text = body_of(mail)
    assert part == text[4_000_000:4_001_000]
    client.append("INBOX", "", None, mail)
    assert client.select("INBOX")[1] == [b"2"]
    client.logout()


def test_too_large_is_refused(make_suite):
    suite = make_suite(config={"smtpd": {"limits": {"message_bytes": 100_000}}})
    suite.add_domain("example.test")
    user = suite.add_account("small@example.test")
    import smtplib
    with pytest.raises(smtplib.SMTPSenderRefused) as refused:
        suite.send(user, b"Subject: x\r\n\r\n" + b"y" * 200_000)
    assert refused.value.smtp_code == 552
    # One that does not say its size is refused at its end.
    with suite.smtp() as client:
        client.mail("a@example.net")
        client.rcpt(user)
        code, text = client.data(b"Subject: x\r\n\r\n" + b"line of text\r\n" * 20_000)
        assert code == 552, text
        assert client.noop()[0] == 250
    suite.send(user)
    suite.wait_messages(user, 1)


def test_many_recipients_share_one_copy(shared):
    people = [shared.add_account(f"many{n}@example.test") for n in range(20)]
    body = message("<many@example.net>", to="list@example.test") + b"x" * 300_000 + b"\r\n"
    shared.send(people, body)
    for person in people:
        (mail,) = shared.wait_messages(person, 1)
        assert mail.endswith(body[-1000:])
        assert f"Delivered-To: {person}".encode() in mail
    # 20 copies of 300 KB are 6 MB; the store holds one.
    size = sum(f.stat().st_size for f in (shared.dir / "state/store").rglob("*") if f.is_file() and "blobs" in f.parts)
    assert size < 3_000_000, f"{size} octets in blobs"


def test_loops_are_refused(shared, account):
    import smtplib
    hops = b"Received: from a by b; Mon, 1 Jun 2026 10:00:00 +0000\r\n" * 120
    with pytest.raises(smtplib.SMTPDataError) as refused:
        shared.send(account, hops + message("<loop@example.net>", to=account))
    assert refused.value.smtp_code == 554
    shared.wait_queue_empty()
    assert shared.messages(account) == []
