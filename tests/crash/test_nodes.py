"""Two nodes lease and drain one queue. One is killed with -9, loses its disk, or is cut off from the others: nothing is lost, and
nothing sent twice but what was under way (RFC 5321 6.1)."""

import collections
import contextlib
import os
import shutil
import signal

import pytest

from load import Load
from servers import MariaDb, Postgres
from sink import Sink
from suite import Suite, message, wait_for

MESSAGES = int(os.environ.get("CRASH_MESSAGES", "2000"))
DOMAINS = [f"d{n}.far.example" for n in range(20)]
CONCURRENCY = 16
# Attempts of a node that may be under way, or over and not written down yet.
UNSETTLED = 2 * CONCURRENCY
LEASE = 4


class Cluster:
    """Nodes with one queue table, and a host that all their mail goes to."""

    def __init__(self, kind, ack):
        self.sink = Sink()
        self.server = kind()
        self.url = self.server.database("queue")
        self.ack, self.nodes, self.loads = ack, [], []

    def node(self, name, **queued):
        local = ["127.0.0.0/8"]
        suite = Suite(config={
            "relayd": {"route": [{"match": ".far.example", "host": "127.0.0.1", "port": self.sink.port, "tls": "none"}]},
            "queued": {"database": self.url, "node": name, "ack": self.ack, "lease": LEASE, "retry_min": 1, "retry_max": 2,
                       "remote_concurrency": CONCURRENCY, "relay_networks": local, **queued},
            "smtpd": {"relay_networks": local},
        })
        self.nodes.append(suite)
        return suite.start()

    def load(self, suite, prefix):
        load = Load(suite, [f"u@{domain}" for domain in DOMAINS], connections=8, prefix=prefix)
        self.loads.append(load)
        return load

    def arrived(self):
        return collections.Counter(name.partition("@")[0] for name, _ in list(self.sink.arrivals))

    def wait_arrivals(self, more, seconds=180):
        goal = len(self.sink.arrivals) + more
        wait_for(lambda: len(self.sink.arrivals) >= goal, lambda: f"{len(self.sink.arrivals)} of {goal}\n{self.tails()}", seconds)

    def tails(self):
        return "\n".join(suite.tail(15) for suite in self.nodes)

    def wait_kept(self, interruptions, seconds=240):
        """All that was acknowledged is there; what is there twice was under way when something broke."""
        promised = {name for load in self.loads for name in load.acknowledged}
        missing = lambda: promised - set(self.arrived())
        wait_for(lambda: not missing(), lambda: f"lost: {len(missing())}, {sorted(missing())[:5]}\n{self.tails()}", seconds, 0.2)
        found = self.arrived()
        unknown = set(found) - promised - {name for load in self.loads for name in load.doubtful}
        assert not unknown, f"never sent: {unknown}"
        twice = {name: count for name, count in found.items() if count > 1}
        again = sum(count - 1 for count in twice.values())
        print(f"{len(promised)} promised, {again} sent again after {interruptions} interruptions; at most {interruptions * UNSETTLED}")
        assert again <= interruptions * UNSETTLED, f"{again} too many: {sorted(twice.items())[:20]}"
        return again

    def remove(self):
        for suite in self.nodes:
            with contextlib.suppress(ProcessLookupError):
                suite.remove()
        self.server.remove()
        self.sink.close()


@pytest.fixture
def cluster():
    made = []

    def make(kind, ack):
        made.append(Cluster(kind, ack))
        return made[-1]

    yield make
    for one in made:
        one.remove()


def kill(suite, *roles):
    """kill -9 of all these at once, when all are up."""
    def pids():
        with contextlib.suppress(AssertionError):
            found = suite.pids()
            return set(roles) <= set(found) and [found[role] for role in roles]
        return None

    for pid in wait_for(pids, lambda: f"{roles} are up\n{suite.tail()}", 60, 0.1):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_all(suite):
    """As if the power went."""
    pids = suite.pids()
    os.kill(suite.process.pid, signal.SIGKILL)
    for pid in pids.values():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    suite.process.wait()
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids.values()), "all gone", 20)


def nodes(suite):
    return {row["name"]: row["state"] for row in suite.json("queue", "nodes")}


def waiting(suite):
    return suite.json("queue", "stats")["messages"]


def fill(cluster, count):
    """Two nodes, and a queue of messages that both took while the destination told everybody to come later."""
    one, two = cluster.node("one"), cluster.node("two")
    cluster.sink.closed = True
    loads = [cluster.load(one, "one"), cluster.load(two, "two")]
    for load in loads:
        load.start(count // 2)
    for load in loads:
        load.join()
        assert len(load.acknowledged) >= count // 2, load.answers
    # Either sees what both have.
    wait_for(lambda: waiting(one) >= count * 9 // 10, lambda: f"{waiting(one)} of {count} in the table\n{cluster.tails()}", 120, 0.2)
    assert nodes(one) == nodes(two) == {"one": "alive", "two": "alive"}
    return one, two, loads


@pytest.mark.timeout(900)
@pytest.mark.parametrize("ack", ["journal", "sql"])
@pytest.mark.parametrize("kind", [Postgres, MariaDb])
def test_a_node_is_killed_and_comes_back(kind, ack, cluster):
    cluster = cluster(kind, ack)
    one, two, loads = fill(cluster, MESSAGES)
    cluster.sink.closed = False
    kills = 0
    for victim in (one, two, one):
        # Mail goes on coming meanwhile.
        for load in loads:
            load.start(100_000)
        cluster.wait_arrivals(MESSAGES // 8)
        kill(victim, "queued", "relayd")
        kills += 1
        for load in loads:
            load.stop()
    cluster.wait_kept(kills)
    for suite in (one, two):
        suite.wait_up(60)
        wait_for(lambda suite=suite: waiting(suite) == 0, lambda: f"{suite.queue()[:3]}\n{cluster.tails()}", 60, 0.2)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", [Postgres, MariaDb])
def test_a_node_never_comes_back_and_its_disk_is_gone(kind, cluster):
    cluster = cluster(kind, "sql")
    one, two, loads = fill(cluster, MESSAGES)
    # Large ones too: their bodies were in its spool.
    large = Load(one, [f"u@{domain}" for domain in DOMAINS], connections=2, size=400_000, prefix="large")
    cluster.loads.append(large)
    large.run(6)
    cluster.sink.closed = False
    # It is killed while it takes and sends mail.
    loads[0].start(100_000)
    cluster.wait_arrivals(MESSAGES // 8)
    kill_all(one)
    loads[0].stop()
    shutil.rmtree(one.dir / "state")
    cluster.wait_kept(1)
    wait_for(lambda: waiting(two) == 0, lambda: f"{two.queue()[:3]}\n{cluster.tails()}", 60, 0.2)
    assert nodes(two) == {"one": "gone", "two": "alive"}
    two.run("queue", "nodes", "--forget", "one")
    assert nodes(two) == {"two": "alive"}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("ack", ["journal", "sql"])
def test_a_node_that_was_cut_off_settles_nothing(ack, cluster):
    cluster = cluster(Postgres, ack)
    one, two, loads = fill(cluster, MESSAGES)
    pid = one.pids()["queued"]
    cluster.sink.closed = False
    cluster.wait_arrivals(MESSAGES // 8)
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: nodes(two)["one"] == "gone", lambda: f"{nodes(two)}\n{two.tail()}", 60, 0.1)
        wait_for(lambda: "a node is gone" in two.log.read_text(), two.tail, 60, 0.1)
        if ack == "sql":
            # All of it is in the table: the other one does it alone.
            cluster.wait_kept(1)
    finally:
        os.kill(pid, signal.SIGCONT)
    cluster.wait_kept(1)
    wait_for(lambda: nodes(two) == {"one": "alive", "two": "alive"}, lambda: f"{nodes(two)}\n{one.tail()}", 60, 0.1)
    assert "away for longer than its lease" in one.log.read_text()
    # It goes on as before.
    loads[0].run(50)
    cluster.wait_kept(1)
    wait_for(lambda: waiting(one) == 0 and waiting(two) == 0, lambda: f"{one.queue()[:3]}\n{cluster.tails()}", 60, 0.2)


@pytest.mark.timeout(300)
def test_one_queue_for_the_operator(cluster):
    """What an operator asks one node to do is done to all; nodes have names of their own; a stop gives back what was leased."""
    cluster = cluster(Postgres, "sql")
    one, two = cluster.node("one"), cluster.node("two")
    cluster.sink.closed = True
    for number, suite in enumerate((one, two)):
        with suite.smtp() as client:
            client.sendmail("jane@example.net", f"u{number}@d0.far.example", message(f"<m{number}@example.net>"))
    wait_for(lambda: len(one.queue()) == 2 and one.queue() == two.queue(), lambda: f"{one.queue()} {two.queue()}")
    one.run("queue", "hold", "--all")
    assert [entry["state"] for entry in two.queue()] == ["held", "held"]
    cluster.sink.closed = False
    two.run("queue", "remove", "--recipient", "u0@d0.far.example")
    two.run("queue", "release", "--all")
    cluster.wait_arrivals(1)
    assert [recipients for _, recipients, _ in cluster.sink.mails] == [["u1@d0.far.example"]]
    one.wait_queue_empty()

    # A third one with a name that is taken gets no lease, takes no mail, and says why.
    three = cluster.node("two")
    wait_for(lambda: "named two" in three.log.read_text(), three.tail)
    with three.smtp() as client, pytest.raises(Exception, match="45[0-9]|421"):
        client.sendmail("jane@example.net", "u@d0.far.example", message("<m3@example.net>"))
    two.stop()
    assert nodes(one)["two"] == "gone"
    wait_for(lambda: nodes(one)["two"] == "alive", lambda: f"{nodes(one)}\n{three.tail()}")


@pytest.mark.timeout(300)
def test_the_database_is_away(cluster):
    """With `ack = "sql"` nothing is taken meanwhile, nothing that was taken is lost, and `posthouse check` says what is wrong."""
    cluster = cluster(Postgres, "sql")
    one = cluster.node("one")
    load = cluster.load(one, "one")
    load.run(50)
    cluster.server.stop(signal.SIGKILL)
    with one.smtp() as client:
        client.mail("jane@example.net")
        client.rcpt("u@d0.far.example")
        code, _ = client.data(message("<away@example.net>"))
        assert code == 451
    assert "queue table is away" in one.log.read_text()
    result = one.run("check", check=False)
    assert result.returncode != 0 and "queue" in result.stdout + result.stderr
    cluster.server.start()
    load.run(50)
    cluster.wait_kept(1)
    assert "away" not in cluster.arrived()
