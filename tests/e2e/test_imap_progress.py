"""INPROGRESS (RFC 9585): a client that waits for a slow store is told so, and gets its answer in the end."""

import os
import re
import signal

from imap_lines import Client


def test_a_slow_change_is_told_to_go_on(make_suite):
    suite = make_suite(config={"imapd": {"progress_s": 1}})
    suite.add_domain("example.test")
    client = Client(suite, suite.add_account("patient@example.test"))
    client.append("INBOX", "one")
    client.do("SELECT INBOX")
    stored = suite.pids()["stored"]
    os.kill(stored, signal.SIGSTOP)
    try:
        client.stream.sendall(b"slow STORE 1 +FLAGS (\\Flagged)\r\n")
        for _ in range(2):
            assert client.line().startswith('* OK [INPROGRESS ("slow" NIL NIL)]')
    finally:
        os.kill(stored, signal.SIGCONT)
    said = client.until("^slow ")
    assert said[-1].startswith("slow OK") and any("FETCH" in line for line in said)


def test_a_long_search_says_how_far_it_is(make_suite):
    suite = make_suite(config={"imapd": {"progress_s": 1}})
    suite.add_domain("example.test")
    client = Client(suite, suite.add_account("patient@example.test"))
    text = "Subject: one of many\r\n\r\n" + 200 * f"{'a line of the many ':.<60}\r\n"
    client.do(f"APPEND INBOX {{{len(text)}+}}\r\n{text}")
    client.do("SELECT INBOX")
    client.stream.settimeout(120)
    for count in (2**power for power in range(16)):
        client.do(f"UID COPY 1:{count} INBOX")
    for command in ("SEARCH BODY nowhere", "ESEARCH IN (personal) BODY nowhere"):
        said = client.do(command)
        told = [re.fullmatch(r'\* OK \[INPROGRESS \("t\d+" (\d+|NIL) (\d+|NIL)\)\] .*', line) for line in said[:-1] if "INPROGRESS" in line]
        assert told and all(told), said
        if command.startswith("SEARCH"):
            done = [int(one[1]) for one in told]
            assert done == sorted(done) and all(int(one[2]) == 65_536 >= int(one[1]) for one in told), said
