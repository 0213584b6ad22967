"""A long queue: dead and slow destinations do not hold up the others, nor the operator."""

import socket
import threading
import time
from pathlib import Path

from sink import Sink
from suite import Suite, free_port, message, wait_for

DEAD, SLOW, QUICK, EACH = 30, 10, 60, 10


def memory(pid):
    """KiB of a process in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def test_healthy_destinations_see_their_mail_while_others_wait():
    quick, slow, dead = Sink(), Sink(delay=3), free_port()
    route = lambda name, port: {"match": name, "host": "127.0.0.1", "port": port, "tls": "none"}
    suite = Suite(config={
        "relayd": {"route": [route(".quick.example", quick.port), route(".slow.example", slow.port),
                             route(".dead.example", dead)]},
        "queued": {"remote_concurrency": 16, "retry_min": 120, "retry_max": 600, "slow_after": 1, "relay_networks": ["127.0.0.0/8"],
                   "expire": 86400},
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
                    for domain in domains[part::4]:
                        client.sendmail("bulk@example.net", f"u{number}@{domain}", octets)

        senders = [threading.Thread(target=send, args=(part,)) for part in range(4)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        accepted = time.monotonic()
        wait_for(lambda: len(quick.mails) == QUICK * EACH, lambda: f"{len(quick.mails)} arrived\n{suite.tail(5)}", 40)
        drained = time.monotonic() - began
        # All slow ones, one after the other over their half of the connections, take longer than that.
        assert len(slow.mails) < SLOW * EACH, "the slow ones were no hindrance"
        asked = time.monotonic()
        figures = suite.json("queue", "stats")
        listed = suite.json("queue", "list")
        took = time.monotonic() - asked
        assert figures["messages"] >= DEAD * EACH and len(listed) >= DEAD * EACH
        assert took < 5, took
        assert all(not e["to"][0].endswith("quick.example") for e in listed)
        resident = memory(suite.pids()["queued"])
        print(f"accepted in {accepted - began:.1f} s, healthy ones done in {drained:.1f} s, list and stats in {took:.2f} s, "
              f"queued has {resident} KiB")
        assert resident < 200_000
    finally:
        suite.remove()
        quick.close()
        slow.close()
