"""SORT and THREAD: the same as Dovecot gives for the same mail."""

import imaplib
import random
import re

import pytest

from servers import Dovecot
from suite import PASSWORD, Suite

ACCOUNT = "alice@example.test"
NAMES = ["Zoe <zoe@example.net>", "adam@example.net", '"Béa" <bea@example.net>', "Group: x@example.net;", "Carl <carl@example.net>"]
SUBJECTS = ["hello", "Re: hello", "[list] Re: hello", "Fwd: plan", "plan", "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=", "", "Re[2]: plan (fwd)"]


def letters():
    """Messages with answers, missing parents, loops, twins and odd subjects; always the same."""
    chance = random.Random(7)
    made = []
    for number in range(120):
        head = [
            f"From: {chance.choice(NAMES)}", f"To: {chance.choice(NAMES)}", f"Subject: {chance.choice(SUBJECTS)}",
            f"Date: {chance.randrange(1, 28)} Nov 2025 {chance.randrange(24):02}:{chance.randrange(60):02}:00 +0100",
        ]
        if chance.random() < 0.95:
            head.append(f"Message-ID: <m{number if chance.random() < 0.97 else number // 2}@example.net>")
        if number and chance.random() < 0.6:
            line = sorted(chance.sample(range(number + 3), min(number, chance.randrange(1, 4))))
            head.append("References: " + " ".join(f"<m{one}@example.net>" for one in line))
        elif number and chance.random() < 0.3:
            head.append(f"In-Reply-To: <m{chance.randrange(number)}@example.net>")
        made.append(("\r\n".join(head) + "\r\n\r\n" + "x" * chance.randrange(400) + "\r\n").encode())
    return made


@pytest.fixture(scope="module")
def sides():
    suite = Suite().start()
    suite.add_domain("example.test")
    suite.add_account(ACCOUNT)
    dovecot = Dovecot([ACCOUNT], PASSWORD)
    there = imaplib.IMAP4("127.0.0.1", dovecot.port, timeout=60)
    there.login(ACCOUNT, PASSWORD)
    clients = [suite.imap(ACCOUNT), there]
    for client in clients:
        for number, octets in enumerate(letters()):
            date = imaplib.Time2Internaldate(1_700_000_000 + (number * 7919) % 100_000)
            assert client.append("INBOX", None, date, octets)[0] == "OK"
        client.select("INBOX")
    yield clients
    for client in clients:
        client.logout()
    dovecot.remove()
    suite.remove()


@pytest.mark.parametrize("by", [
    "ARRIVAL", "REVERSE ARRIVAL", "DATE", "SIZE", "REVERSE SIZE DATE", "SUBJECT", "FROM DATE", "TO SUBJECT REVERSE DATE", "CC",
])
def test_sort(sides, by):
    ours, theirs = (client.sort(f"({by})", "UTF-8", "ALL")[1][0] for client in sides)
    assert ours == theirs


def test_sort_of_a_part(sides):
    ours, theirs = (client.uid("SORT", "(REVERSE DATE)", "UTF-8", "SUBJECT", '"plan"')[1][0] for client in sides)
    assert ours == theirs and ours


@pytest.mark.parametrize("algorithm", ["REFERENCES", "ORDEREDSUBJECT"])
def test_thread(sides, algorithm):
    texts = []
    for client in sides:
        client.thread(algorithm, "UTF-8", "ALL")
        texts.append(client.thread(algorithm, "UTF-8", "ALL")[1][0].decode())
    ours, theirs = ([sorted(re.findall(r"\d+", thread)) for thread in whole_threads(text)] for text in texts)
    assert sorted(sum(ours, [])) == sorted(str(n) for n in range(1, 121))
    if algorithm == "ORDEREDSUBJECT":
        assert texts[0] == texts[1] or "ORDEREDSUBJECT" not in str(sides[1].capabilities)
    else:
        assert sorted(ours) == sorted(theirs)


def whole_threads(text):
    """The threads of a response, each with its own parentheses."""
    depth, start, found = 0, 0, []
    for at, char in enumerate(text):
        if char == "(":
            if depth == 0:
                start = at
            depth += 1
        elif char == ")":
            depth -= 1
            if depth == 0:
                found.append(text[start:at + 1])
    return found


def test_esort(sides):
    client = sides[0]
    tag = client._new_tag()
    client.send(tag + b" UID SORT RETURN (MIN MAX COUNT ALL) (REVERSE SIZE) UTF-8 ALL\r\n")
    while not (line := client.readline()).startswith(tag):
        esearch = line if b"ESEARCH" in line else b""
        if esearch:
            answer = esearch
    assert b"COUNT 120" in answer and b" UID " in answer
    in_order = re.search(rb"ALL (\S+)", answer).group(1).split(b",")
    plain = client.uid("SORT", "(REVERSE SIZE)", "UTF-8", "ALL")[1][0].split()
    assert in_order == plain
    assert b"MIN " + plain[0] in answer and b"MAX " + plain[-1] in answer


def esearch(client, command):
    tag = client._new_tag()
    client.send(tag + b" " + command.encode() + b"\r\n")
    answer = b""
    while not (line := client.readline()).startswith(tag):
        answer = line if b"ESEARCH" in line else answer
    assert line.startswith(tag + b" OK"), line
    return answer.decode()


def modseq_of(client, uid):
    return re.search(r"MODSEQ \((\d+)\)", str(client.uid("FETCH", uid, "(MODSEQ)")[1])).group(1)


def test_modseq_and_pages_are_in_the_order_of_the_sort(sides):
    client = sides[0]
    order = client.uid("SORT", "(REVERSE SIZE DATE)", "UTF-8", "ALL")[1][0].decode().split()
    sort = "(REVERSE SIZE DATE) UTF-8 ALL"
    # Across an end of the results, too.
    for page, part in [("1:7", order[:7]), ("-1:-7", order[-7:]), ("115:130", order[114:]), ("121:130", [])]:
        answer = esearch(client, f"UID SORT RETURN (PARTIAL {page}) {sort}")
        assert f"UID PARTIAL ({page} {','.join(part) or 'NIL'})" in answer
    ends = {"MIN": order[0], "MAX": order[-1]}
    for name, uid in ends.items():
        answer = esearch(client, f"UID SORT RETURN ({name}) (REVERSE SIZE DATE) UTF-8 MODSEQ 1")
        assert f"{name} {uid} MODSEQ {modseq_of(client, uid)}\r\n" in answer
    esearch(client, f"UID SORT RETURN (SAVE PARTIAL 3:4) {sort}")
    saved = sorted(order[2:4], key=int)
    assert sorted(client.uid("SEARCH", "$")[1][0].decode().split(), key=int) == saved
