"""A long queue: dead and slow destinations do not hold up the others, nor the operator.

BACKLOG_DESTINATIONS and BACKLOG_EACH (messages for each) make it as long as one likes: 1000 and 100 are the 100,000 of docs/queue.md.
"""

import os
import threading
import time
from pathlib import Path

import pytest

from sink import Sink
from suite import Suite, free_port, message, wait_for

DESTINATIONS = int(os.environ.get("BACKLOG_DESTINATIONS", "100"))
EACH = int(os.environ.get("BACKLOG_EACH", "10"))
# Three tenths are dead, one tenth is slow.
DEAD, SLOW = DESTINATIONS * 3 // 10, DESTINATIONS // 10
QUICK = DESTINATIONS - DEAD - SLOW
SENDERS = 16
SECONDS = 40 + DESTINATIONS * EACH // 50


def memory(pid):
    """KiB of a process in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


@pytest.mark.timeout(120 + 3 * SECONDS)
def test_healthy_destinations_see_their_mail_while_others_wait():
    quick, slow, dead = Sink(), Sink(delay=3), free_port()
    route = lambda name, port: {"match": name, "host": "127.0.0.1", "port": port, "tls": "none"}
    suite = Suite(config={
        "relayd": {"route": [route(".quick.example", quick.port), route(".slow.example", slow.port),
                             route(".dead.example", dead)]},
        "queued": {"remote_concurrency": max(16, DESTINATIONS // 5), "retry_min": 120, "retry_max": 600, "slow_after": 1,
                   "relay_networks": ["127.0.0.0/8"]},
        "smtpd": {"relay_networks": ["127.0.0.0/8"]},
    })
    try:
        suite.start()
        suite.add_domain("example.test")
        domains = [f"d{n}.dead.example" for n in range(DEAD)] + [f"s{n}.slow.example" for n in range(SLOW)]
        domains += [f"q{n}.quick.example" for n in range(QUICK)]
        began = time.monotonic()
        octets = message("<backlog@example.net>", text="x" * 1500 + "\r\n")

        def send(part):
            with suite.smtp() as client:
                for number in range(EACH):
                    for domain in domains[part::SENDERS]:
                        client.sendmail("bulk@example.net", f"u{number}@{domain}", octets)

        senders = [threading.Thread(target=send, args=(part,)) for part in range(SENDERS)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        accepted = time.monotonic()
        wait_for(lambda: len(quick.mails) == QUICK * EACH, lambda: f"{len(quick.mails)} arrived\n{suite.tail(5)}", SECONDS)
        drained = time.monotonic() - began
        # All slow ones, one after the other over their half of the connections, take longer than that.
        assert len(slow.mails) < SLOW * EACH, "the slow ones were no hindrance"
        asked = time.monotonic()
        figures = suite.json("queue", "stats")
        counted = time.monotonic() - asked
        listed = suite.json("queue", "list")
        took = time.monotonic() - asked
        assert figures["messages"] >= DEAD * EACH and len(listed) >= DEAD * EACH
        assert counted < 5, counted
        assert took < 5 + DESTINATIONS * EACH // 2000, took
        # What has just arrived may be crossed out a moment later.
        wait_for(lambda: not suite.json("queue", "list", "--recipient", "@q0.quick.example"), "none of a healthy destination")
        resident = memory(suite.pids()["queued"])
        print(f"accepted in {accepted - began:.1f} s, healthy ones done in {drained:.1f} s; {figures['messages']} wait, {len(slow.mails)} "
              f"slow ones are done; stats in {counted:.2f} s, with the whole list {took:.2f} s; queued has {resident} KiB")
        assert resident < 200_000
    finally:
        suite.remove()
        quick.close()
        slow.close()
