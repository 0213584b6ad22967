"""APPEND and its kin: several messages at once (RFC 3502), messages made of others (RFC 4469), REPLACE (RFC 8508), and
large ones on their way."""

import email
import email.policy
import imaplib
import os
import re
import ssl

import pytest

from imap_lines import Client
from suite import PASSWORD, wait_for


def letter(subject, text="text\r\n"):
    return f"Subject: {subject}\r\n\r\n{text}".encode()


def literal(octets, plus="+"):
    return b"{%d%s}\r\n%s" % (len(octets), plus.encode(), octets)


def said_to(client, command):
    """Sends octets as they are, and gives all lines to the tagged one."""
    client.number += 1
    tag = f"t{client.number}"
    client.stream.sendall(tag.encode() + b" " + command + b"\r\n")
    return client.until(f"^{tag} ")


def status(client, mailbox="INBOX"):
    said = client.do(f"STATUS {mailbox} (MESSAGES UIDNEXT)")
    return tuple(map(int, re.search(r"MESSAGES (\d+) UIDNEXT (\d+)", said[0]).groups()))


def body(suite, user, mailbox, uid, section=""):
    """As another IMAP client reads it."""
    host, port = suite.address("imaps")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client = imaplib.IMAP4_SSL(host, port, ssl_context=context)
    client.login(user, PASSWORD)
    client.select(mailbox, readonly=True)
    said, data = client.uid("FETCH", str(uid), f"(BODY.PEEK[{section}])")
    client.logout()
    assert said == "OK"
    return data[0][1]


@pytest.fixture
def two(shared, account):
    return Client(shared, account), Client(shared, account)


# MULTIAPPEND


def test_messages_of_one_command_come_at_once(shared, account, two):
    client, other = two
    other.do("SELECT INBOX")
    # Small and large ones, and in all more than goes through a frame.
    texts = [os.urandom(size).hex() + "\r\n" for size in (10, 30_000, 10, 300_000, 20_000, 40_000, 31_000)]
    messages = [letter(number, text) for number, text in enumerate(texts)]
    command = b"APPEND INBOX" + b"".join(b" (\\Flagged) " + literal(one) for one in messages)
    said = said_to(client, command)
    assert re.match(r"t\d+ OK \[APPENDUID \d+ 1:7\]", said[-1]), said
    assert [line for line in other.do("NOOP") if "EXISTS" in line] == ["* 7 EXISTS"]
    for uid, message in enumerate(messages, 1):
        assert body(shared, account, "INBOX", uid) == message


def test_all_are_kept_or_none(shared, two):
    client, other = two
    small, large = letter("small"), letter("large", os.urandom(100_000).hex())
    # The last one is empty; the syntax behind it is wrong; it never comes.
    for end, answer in [(b" {0+}\r\n", "NO"), (b" (\\Seen) NIL", "BAD"), (b" {70000000}", "NO [TOOBIG]")]:
        said = said_to(client, b"APPEND INBOX " + literal(small) + b" " + literal(large) + end)
        assert re.match(rf"t\d+ {re.escape(answer)} ", said[-1]), (end, said)
        assert status(client) == (0, 1)
    client.stream.sendall(b"x APPEND INBOX " + literal(small) + b" " + literal(large) + b" {100000+}\r\nabc")
    client.stream.close()
    assert status(other) == (0, 1)


def test_a_quota_is_kept_by_all_of_them_together(shared, account):
    client = Client(shared, shared.add_account(f"narrow-{account}", "--quota", "200K"))
    one = letter("one", os.urandom(40_000).hex())
    said = said_to(client, b"APPEND INBOX " + b" ".join(literal(one) for _ in range(3)))
    assert "NO [OVERQUOTA]" in said[-1], said
    assert status(client) == (0, 1)
    assert " OK " in said_to(client, b"APPEND INBOX " + b" ".join(literal(one) for _ in range(2)))[-1]
    assert status(client) == (2, 3)


# CATENATE

BOUNDARY = "=_a-boundary"


def with_attachment(size):
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["Subject"] = "the plan"
    message["From"] = "agent@example.org"
    message.set_content("see below\n")
    message.add_attachment(os.urandom(size), maintype="application", subtype="octet-stream", filename="plan.bin")
    return message.as_bytes()


@pytest.mark.parametrize("size", [2_000, 400_000])
def test_a_draft_takes_the_attachment_of_another_message(shared, account, two, size):
    client, _ = two
    original = with_attachment(size)
    said = said_to(client, b"APPEND INBOX " + literal(original))
    validity, uid = re.search(r"APPENDUID (\d+) (\d+)", said[-1]).groups()
    url = f"/INBOX;UIDVALIDITY={validity}/;UID={uid}/;SECTION="
    head = (
        f"Subject: Fwd\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"{BOUNDARY}\"\r\n\r\n"
        f"--{BOUNDARY}\r\n\r\nas you asked\r\n--{BOUNDARY}\r\n"
    ).encode()
    tail = f"\r\n--{BOUNDARY}--\r\n".encode()
    parts = b" ".join(
        [b"TEXT " + literal(head), f'URL "{url}2.MIME" URL "{url}2"'.encode(), b"TEXT " + literal(tail)]
    )
    said = said_to(client, b"APPEND Drafts (\\Draft) CATENATE (" + parts + b")")
    uid = re.search(r"OK \[APPENDUID \d+ (\d+)\]", said[-1])[1]
    draft = body(shared, account, "Drafts", uid)
    mime = body(shared, account, "INBOX", 1, "2.MIME")
    assert draft == head + mime + body(shared, account, "INBOX", 1, "2") + tail

    def attachment(octets):
        return list(email.message_from_bytes(octets, policy=email.policy.SMTP).iter_attachments())[-1].get_content()

    assert len(attachment(draft)) == size and attachment(draft) == attachment(original)
    # The structure is that of the new message.
    client.do("SELECT Drafts")
    assert '"plan.bin"' in client.do("FETCH 1 BODYSTRUCTURE")[0]


def test_a_part_of_somebody_elses_message_needs_the_right_to_read(shared, account, two):
    owner, _ = two
    guest_name = shared.add_account(f"guest-of-{account}")
    guest = Client(shared, guest_name)
    owner.append("INBOX", "secret")
    url = f"/Other%20Users/{account.replace('@', '%40')}/INBOX/;UID=1"
    command = f'APPEND INBOX CATENATE (TEXT {{8+}}\r\nX-A: b\r\n URL "{url}")'.encode()

    # Without any right, and with all but that to read.
    assert f'NO [BADURL "{url}"]' in said_to(guest, command)[-1]
    owner.do(f"SETACL INBOX {guest_name} lsi")
    assert f'NO [BADURL "{url}"]' in said_to(guest, command)[-1]
    assert status(guest) == (0, 1)
    owner.do(f"SETACL INBOX {guest_name} lr")
    assert "OK [APPENDUID" in said_to(guest, command)[-1]
    assert body(shared, guest_name, "INBOX", 1) == b"X-A: b\r\n" + letter("secret")


def test_a_right_that_is_taken_counts_for_the_selected_mailbox_too(shared, account, two):
    owner, _ = two
    guest_name = shared.add_account(f"guest-of-{account}")
    guest = Client(shared, guest_name)
    owner.append("INBOX", "secret")
    owner.do(f"SETACL INBOX {guest_name} lr")
    guest.do(f'SELECT "Other Users/{account}/INBOX"')
    command = b'APPEND INBOX CATENATE (TEXT {8+}\r\nX-A: b\r\n URL ";UID=1")'
    assert "OK [APPENDUID" in said_to(guest, command)[-1]
    owner.do(f"SETACL INBOX {guest_name} l")
    said = said_to(guest, command)
    assert 'NO [BADURL ";UID=1"]' in said[-1], said
    assert status(Client(shared, guest_name))[0] == 1


def test_what_is_made_of_parts_is_bounded(make_suite):
    suite = make_suite(config={"imapd": {"append_bytes": 100_000}})
    suite.add_domain("example.test")
    user = suite.add_account("maker@example.test")
    client = Client(suite, user)
    said_to(client, b"APPEND INBOX " + literal(letter("half", "x" * 60_000)))
    url = b'URL "/INBOX/;UID=1"'
    assert "NO [TOOBIG]" in said_to(client, b"APPEND INBOX CATENATE (" + url + b" " + url + b")")[-1]
    said = said_to(client, b"APPEND INBOX CATENATE (" + url + b" TEXT {50000}")
    assert "NO [TOOBIG]" in said[-1], said
    assert status(client) == (1, 2)
    # Two of them are two messages, each within the limit.
    said = said_to(client, b"APPEND INBOX CATENATE (" + url + b") CATENATE (" + url + b")")
    assert "OK [APPENDUID" in said[-1], said
    assert status(client) == (3, 4)


# REPLACE


def test_another_session_sees_one_message_go_and_one_come(two):
    client, other = two
    for number in range(1, 4):
        client.append("Drafts", f"draft {number}")
    other.do("ENABLE QRESYNC")
    other.do("SELECT Drafts")
    other.stream.sendall(b"idle IDLE\r\n")
    other.until(r"^\+ ")
    client.do("SELECT Drafts")
    said = said_to(client, b"UID REPLACE 2 Drafts (\\Draft) " + literal(letter("draft 2, again")))
    assert re.match(r"\* OK \[APPENDUID \d+ 4\]", said[0]), said
    assert "* 2 EXPUNGE" in said and re.match(r"t\d+ OK ", said[-1])
    told = other.until("EXISTS|VANISHED") + other.until("EXISTS|VANISHED|FETCH")
    assert any(line.startswith("* VANISHED 2") for line in told), told
    assert any("EXISTS" in line for line in told), told
    other.stream.sendall(b"DONE\r\n")
    other.until("^idle ")
    assert other.do("UID SEARCH ALL")[-2] in ("* SEARCH 1 3 4", "* ESEARCH")
    # The replaced one is gone for good, for both.
    assert "NONEXISTENT" in said_to(client, b"UID REPLACE 2 Drafts " + literal(letter("late")))[-1]
    assert status(client, "Sent")[0] == 0


def test_replacing_needs_the_rights_to_expunge_and_to_insert(shared, account, two):
    owner, _ = two
    guest_name = shared.add_account(f"guest-of-{account}")
    guest = Client(shared, guest_name)
    owner.append("INBOX", "old")
    name = f'"Other Users/{account}/INBOX"'
    new = literal(letter("new"))
    for rights in ("lrsi", "lrsit", "lrsie", "lrste"):
        owner.do(f"SETACL INBOX {guest_name} {rights}")
        guest.do(f"SELECT {name}")
        said = said_to(guest, f"UID REPLACE 1 {name} ".encode() + new)
        assert "NO [NOPERM]" in said[-1], (rights, said)
        guest.do("UNSELECT")
    assert status(owner) == (1, 2)
    owner.do(f"SETACL INBOX {guest_name} lrsite")
    guest.do(f"SELECT {name}")
    said = said_to(guest, f"UID REPLACE 1 {name} ".encode() + new)
    assert re.match(r"t\d+ OK ", said[-1]), said
    assert status(owner) == (1, 3)


def test_a_replacement_without_room_leaves_the_old_message(shared, account):
    user = shared.add_account(f"narrow-{account}", "--quota", "200K")
    client = Client(shared, user)
    large = letter("large", "x" * 120_000)
    assert " OK " in said_to(client, b"APPEND Drafts " + literal(large))[-1]
    client.do("SELECT Drafts")
    assert "NO [OVERQUOTA]" in said_to(client, b"UID REPLACE 1 Drafts " + literal(large))[-1]
    assert status(client, "Drafts") == (1, 2)
    assert body(shared, user, "Drafts", 1) == large


# Large messages on their way


def begin(suite, user, octets, mailbox="INBOX"):
    """A client that has announced a message and has sent a part of it."""
    client = Client(suite, user)
    client.stream.sendall(b"large APPEND %s {%d}\r\n" % (mailbox.encode(), octets))
    return client


def test_slow_clients_take_no_memory_and_no_turn(make_suite):
    """What arrives slowly lies in stored's files: the room for messages in memory is for others."""
    suite = make_suite(config={"imapd": {"large_kib": 16 * 1024}})
    suite.add_domain("example.test")
    user = suite.add_account("slow@example.test")
    size = 12 * 1024 * 1024
    head = b"Subject: large\r\n\r\n"
    line = b"0123456789abcdef" * 4 + b"\r\n"
    large = head + line * ((size - len(head)) // len(line))
    begun = [begin(suite, user, len(large)) for _ in range(8)]
    for client in begun:
        client.until(r"^\+ ")
        client.stream.sendall(large[: len(large) - 1000])

    def resident():
        text = open(f"/proc/{suite.pids()['imapd']}/status").read()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1])

    # All but the end of 96 MiB has been read from the sockets, and others have their turn.
    other = Client(suite, user)
    said = said_to(other, b"APPEND INBOX " + literal(large))
    assert re.match(r"t\d+ OK ", said[-1]), said
    kib = resident()
    for client in begun:
        client.stream.sendall(large[len(large) - 1000 :] + b"\r\n")
        assert client.until("^large ")[-1].startswith("large OK [APPENDUID "), "not kept"
    assert kib < 80 * 1024, kib
    assert status(other)[0] == 9
    assert body(suite, user, "INBOX", 9) == large


def test_a_message_that_does_not_come_is_given_back(make_suite):
    """An account has a quarter of stored's files: here one."""
    suite = make_suite(config={"stored": {"uploads": 4}})
    suite.add_domain("example.test")
    user, another = suite.add_account("one@example.test"), suite.add_account("two@example.test")
    large = letter("large", "x" * 100_000)
    first = begin(suite, user, len(large))
    first.until(r"^\+ ")
    first.stream.sendall(large[:70_000])
    second = Client(suite, user)
    assert "NO [LIMIT]" in said_to(second, b"APPEND INBOX " + literal(large))[-1]
    assert " OK " in said_to(Client(suite, another), b"APPEND INBOX " + literal(large))[-1]
    first.stream.close()
    wait_for(lambda: " OK " in said_to(second, b"APPEND INBOX " + literal(large))[-1], "the file is free again")
    # What is refused behind its octets gives it back, too.
    said = said_to(second, b"APPEND INBOX " + literal(large) + b" nonsense")
    assert " BAD " in said[-1], said
    wait_for(lambda: " OK " in said_to(second, b"APPEND INBOX " + literal(large))[-1], "the file is free again")
    assert status(second)[0] == 2


def test_what_has_no_room_is_not_asked_for(shared, account):
    user = shared.add_account(f"narrow-{account}", "--quota", "200K")
    client = begin(shared, user, 300_000)
    assert client.until("^(large|\\+) ")[-1].startswith("large NO [OVERQUOTA] ")
    # It counts for one's own mailboxes only.
    friend = Client(shared, account)
    friend.do(f"SETACL INBOX {user} lrsi")
    message = letter("to a friend", "x" * 250_000)
    said = said_to(client, f'APPEND "Other Users/{account}/INBOX" '.encode() + literal(message))
    assert re.match(r"t\d+ OK \[APPENDUID ", said[-1]), said
    assert body(shared, account, "INBOX", 1) == message
