"""Who gets what: accounts, aliases, groups, subaddresses, catch-all, quotas, application passwords, logins."""

import crypt
import imaplib
import smtplib

import pytest

from suite import PASSWORD, Failed, anybody, message, wait_for


def refused(code):
    class Refused:
        def __enter__(self):
            self.context = pytest.raises(smtplib.SMTPRecipientsRefused)
            self.caught = self.context.__enter__()
            return self.caught

        def __exit__(self, *details):
            done = self.context.__exit__(*details)
            (answer,) = self.caught.value.recipients.values()
            assert answer[0] == code, answer
            return done

    return Refused()


def test_unknown_recipients_are_refused(shared):
    with refused(550):
        shared.send("nobody@example.test")
    with refused(550):
        shared.send("somebody@elsewhere.example")


def test_aliases(shared, account):
    second = shared.add_account("alias-second@example.test")
    shared.run("alias", "add", "both@example.test", account, second)
    shared.send("BOTH@Example.TEST")
    shared.wait_messages(account, 1)
    shared.wait_messages(second, 1)
    shared.run("alias", "set", "both@example.test", second)
    shared.send("both@example.test")
    shared.wait_messages(second, 2)
    shared.run("alias", "remove", "both@example.test")
    wait_for(lambda: _refused(shared, "both@example.test"), "the alias is gone", 90, 0.5)
    assert len(shared.messages(account)) == 1


def _refused(suite, address):
    try:
        suite.send(address)
    except smtplib.SMTPRecipientsRefused:
        return True
    return False


def test_groups(shared, account):
    second = shared.add_account("group-second@example.test")
    shared.run("group", "add", "team@example.test", "--member", account, "--member", second, "--description", "The team")
    shared.send("team@example.test", subject="to the team")
    # An address that is reached twice gets one copy.
    shared.send(["team@example.test", account], subject="twice")
    shared.wait_messages(second, 2)
    shared.wait_queue_empty()
    assert len(shared.messages(account)) in (2, 3)
    assert [g["address"] for g in shared.json("group", "list")] == ["team@example.test"]


def test_subaddresses(shared, account):
    local, domain = account.split("@")
    client = shared.imap(account)
    client.create("shopping")
    client.logout()
    shared.send(f"{local}+shopping@{domain}")
    shared.send(f"{local}+anything@{domain}")
    shared.wait_messages(account, 1, "shopping")
    shared.wait_messages(account, 1)


def test_a_domain_that_is_another(make_suite):
    suite = make_suite()
    suite.add_domain("first.test")
    jane = suite.add_account("jane@first.test")
    suite.add_domain("second.test", "--alias-of", "first.test")
    assert suite.json("domain", "show", "second.test")["alias_of"] == "first.test"
    suite.send("Jane@second.test")
    suite.wait_messages(jane, 1)
    with suite.smtp() as client:
        client.mail("x@far.test")
        assert client.rcpt("nobody@second.test")[0] == 550
    with suite.submission(jane) as client:
        client.sendmail("jane@second.test", jane, message("<own@second.test>", to=jane, sender="jane@second.test"))
    suite.wait_messages(jane, 2)
    assert suite.run("domain", "remove", "first.test", check=False).returncode != 0
    suite.run("domain", "set", "second.test", "--alias-of", "")
    with suite.smtp() as client:
        client.mail("x@far.test")
        assert client.rcpt("jane@second.test")[0] == 550


def test_catch_all(make_suite):
    suite = make_suite()
    suite.add_domain("catch.test")
    everything = suite.add_account("everything@catch.test")
    own = suite.add_account("own@catch.test")
    suite.run("domain", "set", "catch.test", "--catch-all", everything)
    suite.send("whoever@catch.test")
    suite.send(own)
    suite.wait_messages(everything, 1)
    suite.wait_messages(own, 1)
    assert len(suite.messages(everything)) == 1


def test_disabled_accounts(shared, account):
    shared.run("account", "set", account, "--enabled", "false")
    with pytest.raises(imaplib.IMAP4.error):
        shared.imap(account)
    shared.run("account", "set", account, "--enabled", "true")
    shared.imap(account).logout()


def test_changed_passwords(shared, account):
    shared.run("account", "set", account, "--password-stdin", stdin="another one 99\n")
    wait_for(lambda: _login_fails(shared, account, PASSWORD), "the old password is no good", 60, 0.5)
    shared.imap(account, "another one 99").logout()


def _login_fails(suite, user, password):
    try:
        suite.imap(user, password).logout()
    except imaplib.IMAP4.error:
        return True
    return False


@pytest.mark.parametrize("kind", ["sha512", "sha256", "ssha", "bcrypt"])
def test_hashes_of_other_systems(shared, kind):
    import base64
    import hashlib
    password = "moved from afar 5"
    hashed = {
        "sha512": lambda: crypt.crypt(password, crypt.mksalt(crypt.METHOD_SHA512)),
        "sha256": lambda: "{SHA256-CRYPT}" + crypt.crypt(password, crypt.mksalt(crypt.METHOD_SHA256)),
        "ssha": lambda: "{SSHA}" + base64.b64encode(hashlib.sha1(password.encode() + b"salt").digest() + b"salt").decode(),
        "bcrypt": lambda: "{BLF-CRYPT}" + crypt.crypt(password, crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16)),
    }[kind]()
    name = f"moved-{kind}@example.test"
    shared.run("account", "add", name, "--password-hash", hashed)
    shared.imap(name, password).logout()
    with pytest.raises(imaplib.IMAP4.error):
        shared.imap(name, "something else 5")


def test_application_passwords(shared, account):
    made = shared.json("app-password", "add", account, "phone", "--rights", "read")
    password = made["password"]
    shared.imap(account, password).logout()
    # Cut down to reading: it may not send.
    client = smtplib.SMTP_SSL(*shared.address("submissions"), context=anybody(), timeout=20)
    with pytest.raises(smtplib.SMTPException):
        client.login(account, password)
        client.sendmail(account, account, b"Subject: x\r\n\r\nx")
    assert [p["label"] for p in shared.json("app-password", "list", account)] == ["phone"]
    assert password not in shared.run("app-password", "list", account).stdout
    shared.run("app-password", "remove", account, "phone")
    wait_for(lambda: _login_fails(shared, account, password), "the application password is no good", 60, 0.5)
    shared.imap(account).logout()


def test_quota(shared):
    user = shared.add_account("quota@example.test", "--quota", "100K")
    for number in range(3):
        shared.send(user, b"Subject: fill\r\n\r\n" + b"0123456789" * 3000 + b"\r\n")
        shared.wait_messages(user, number + 1)
    client = shared.imap(user)
    status, answer = client.append("INBOX", "", None, b"Subject: more\r\n\r\n" + b"x" * 60_000)
    assert status == "NO" and b"OVERQUOTA" in answer[0]
    assert client.getquotaroot("INBOX")[0] == "OK"
    client.logout()
    # Mail from outside is refused at once or returned to its sender, never lost in silence, never stored.
    sender = shared.add_account("quota-sender@example.test")
    try:
        shared.send(user, b"Subject: too much\r\n\r\n" + b"x" * 80_000 + b"\r\n", sender=sender)
        (report,) = shared.wait_messages(sender, 1)
        assert b"multipart/report" in report and b"5.2.2" in report
    except smtplib.SMTPRecipientsRefused as error:
        (answer,) = error.recipients.values()
        assert answer[0] in (452, 552)
    shared.wait_queue_empty()
    assert len(shared.messages(user)) == 3


def test_everything_can_be_listed_shown_and_removed(shared):
    shared.add_domain("short.test", "--quota", "5M")
    user = shared.add_account("brief@short.test", "--display-name", "Brief Life")
    assert user in [a["name"] for a in shared.json("account", "list", "--domain", "short.test")]
    assert "Brief Life" in shared.run("account", "show", user).stdout
    with pytest.raises(Failed, match="brief@short.test"):
        shared.run("domain", "remove", "short.test")
    shared.run("account", "remove", user)
    shared.run("domain", "remove", "short.test")
    assert "short.test" not in [d["name"] for d in shared.json("domain", "list")]


def test_mistakes_are_explained(shared):
    for arguments, word in [
        (("account", "add", "x@nowhere.test"), "nowhere.test"),
        (("account", "add", "no-at-sign"), "local@domain"),
        (("account", "show", "missing@example.test"), "missing@example.test"),
        (("domain", "add", "bad domain"), "bad domain"),
        (("domain", "add", "example.test"), "example.test"),
    ]:
        with pytest.raises(Failed) as failed:
            shared.run(*arguments, stdin=PASSWORD + "\n")
        assert failed.value.code in (1, 2) and word in failed.value.text


def test_wrong_passwords_lead_to_a_block(make_suite):
    blocking = {"address_failures": 5, "delay_ms": 1, "delay_max_ms": 2, "allow": []}
    suite = make_suite(config={"authd": {"blocking": blocking}})
    suite.add_domain("example.test")
    user = suite.add_account("target@example.test")
    suite.imap(user).logout()
    for attempt in range(8):
        assert _login_fails(suite, user, f"guess {attempt} for it")
    assert [b["network"] for b in suite.json("block", "list")] != []
    assert _login_fails(suite, user, PASSWORD), "the address is blocked, right password or not"
    for block in suite.json("block", "list"):
        suite.run("block", "remove", block["network"])
    suite.imap(user).logout()
