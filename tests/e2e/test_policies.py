"""MTA-STS policies are remembered over restarts: who has seen one is not talked out of it, whatever is suppressed (RFC 8461 10.2)."""

import os
import signal
import subprocess

import dns.query
import dns.tsigkeyring
import dns.update

from authority import TSIG, DynamicKnot, open_folder
from exchangers import Authority, Exchanger, Policies
from servers import zone
from suite import free_port, message, wait_for

USER = "me@us.example"
DOMAIN = "there.example"
POLICY = "version: STSv1\r\nmode: {mode}\r\nmx: mx.there.example\r\nmax_age: {age}\r\n"


class Place:
    """A domain with a policy, whose records, policy server and exchanger an attacker may have in hand."""

    def __init__(self, age=86400):
        self.ca, self.port, self.https = Authority(open_folder(), "ca"), free_port(), free_port()
        self.stranger = Authority(self.ca.dir, "stranger")
        self.exchanger = Exchanger("127.0.0.1", self.port, self.ca.host("mx.there.example"))
        self.policies = Policies("127.0.0.1", self.https, self.ca.host(f"mta-sts.{DOMAIN}"), POLICY.format(mode="enforce", age=age))
        self.names = DynamicKnot({DOMAIN: zone(DOMAIN, [
            "@ MX 10 mx", "mx A 127.0.0.1", "mta-sts A 127.0.0.1", '_mta-sts 1 TXT "v=STSv1; id=1;"'])})

    def settings(self):
        return {"relayd": {"port": self.port, "nameservers": [f"127.0.0.1:{self.names.port}"], "tls_ca_file": self.ca.file,
                           "idle_timeout": 0, "dkim": False, "tls": {"mta_sts_port": self.https, "mta_sts_timeout": 3}},
                "queued": {"retry_min": 300, "retry_max": 300}}

    def update(self, change):
        update = dns.update.Update(DOMAIN, keyring=dns.tsigkeyring.from_text({"certd.": TSIG}), keyalgorithm="hmac-sha256")
        change(update)
        assert dns.query.tcp(update, "127.0.0.1", port=self.names.port, timeout=10).rcode() == 0

    def announce(self, number):
        self.update(lambda update: update.replace("_mta-sts", 1, "TXT", f'"v=STSv1; id={number};"'))

    def attack(self):
        """No record, no policy server, and a certificate of the attacker's own."""
        self.update(lambda update: (update.delete("_mta-sts"), update.delete("mta-sts")))
        self.policies.close()
        self.exchanger.identity = self.stranger.host("mx.there.example")

    def remove(self):
        self.exchanger.close()
        self.names.remove()


def kill_all(suite):
    """Power cut, as far as processes go."""
    os.killpg(suite.process.pid, signal.SIGKILL)
    suite.process.wait()
    suite.process = None
    gone = lambda: not subprocess.run(["pgrep", "-f", str(suite.dir)], capture_output=True).stdout
    wait_for(gone, "all processes gone")
    suite.start()


def send(suite, number):
    with suite.submission(USER) as client:
        client.sendmail(USER, [f"you{number}@{DOMAIN}"], message(f"<{number}@us.example>", to=f"you{number}@{DOMAIN}", sender=USER))


def last(suite, number):
    return next((row["last"] for row in suite.queue() if f"you{number}@" in str(row["to"]) and row["last"]), None)


def taken(place, number):
    return [mail for mail in place.exchanger.mails if mail[1] == f"you{number}@{DOMAIN}"]


def start(make_suite, place):
    suite = make_suite(config=place.settings())
    suite.add_domain("us.example")
    suite.add_account(USER)
    return suite


def test_a_policy_outlives_all_daemons(make_suite):
    place = Place()
    try:
        suite = start(make_suite, place)
        send(suite, 1)
        wait_for(lambda: taken(place, 1), suite.tail)
        assert place.policies.asked == 1 and "verified" in suite.log.read_text()
        suite.wait_queue_empty()
        kill_all(suite)
        # It is not fetched again for that.
        send(suite, 2)
        wait_for(lambda: taken(place, 2), suite.tail)
        assert place.policies.asked == 1
        suite.wait_queue_empty()
        kill_all(suite)
        place.attack()
        send(suite, 3)
        said = wait_for(lambda: last(suite, 3), suite.tail)
        assert "certificate" in said or "verif" in said, said
        assert 'result="certificate-not-trusted"' in suite.log.read_text(), suite.tail()
        # In the clear is no way, either.
        place.exchanger.identity = None
        send(suite, 4)
        said = wait_for(lambda: last(suite, 4), suite.tail)
        assert "TLS" in said, said
        assert not taken(place, 3) and not taken(place, 4)
        # The attacker is gone.
        place.exchanger.identity = place.ca.host("mx.there.example")
        suite.run("queue", "retry", "--all")
        wait_for(lambda: taken(place, 3) and taken(place, 4), suite.tail)
        assert all(secured for _, _, secured, _ in place.exchanger.mails)
    finally:
        place.remove()


def test_a_new_policy_replaces_the_old_one_for_good(make_suite):
    """From `enforce` to `none`: withdrawn is withdrawn, also after a restart."""
    place = Place()
    try:
        suite = start(make_suite, place)
        send(suite, 1)
        wait_for(lambda: taken(place, 1), suite.tail)
        place.policies.text = POLICY.format(mode="none", age=86400)
        place.announce(2)
        # The name server's answer may be remembered for a second.
        number = iter(range(2, 100))

        def fetched():
            one = next(number)
            send(suite, one)
            wait_for(lambda: taken(place, one), suite.tail)
            return place.policies.asked == 2

        wait_for(fetched, suite.tail)
        suite.wait_queue_empty()
        kill_all(suite)
        place.attack()
        send(suite, 100)
        wait_for(lambda: taken(place, 100), suite.tail)
    finally:
        place.remove()


def test_an_old_policy_is_renewed_when_mail_goes(make_suite):
    """RFC 8461 3.3: with the same id, before its end; what cannot be renewed counts until then."""
    place = Place(age=6)
    try:
        suite = start(make_suite, place)
        number = iter(range(1, 1000))

        def asked(times):
            def done():
                one = next(number)
                send(suite, one)
                wait_for(lambda: taken(place, one), suite.tail)
                return place.policies.asked >= times
            return done

        wait_for(asked(1), suite.tail)
        wait_for(asked(3), suite.tail, 30, 0.3)
        assert place.policies.asked <= 6, "not for each message"
    finally:
        place.remove()
