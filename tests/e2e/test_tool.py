"""Commands of the tool on single accounts: scripts, erasing, what check finds."""

import json

import pytest

from suite import PASSWORD, Suite

ALICE = "alice@example.test"


@pytest.fixture(scope="module")
def suite():
    suite = Suite().start()
    suite.add_domain("example.test")
    yield suite
    suite.remove()


def test_scripts_are_put_shown_activated_and_deleted(suite):
    account = suite.add_account("scripts@example.test")
    suite.run("script", "put", account, "main", "--activate", stdin='require "fileinto";\r\nkeep;\r\n')
    suite.run("script", "put", account, "other", stdin="keep;")
    rows = suite.json("script", "list", account)
    assert [(row["name"], row["active"]) for row in rows] == [("main", True), ("other", False)]
    assert suite.json("script", "show", account, "main")["content"] == 'require "fileinto";\r\nkeep;\r\n'
    refused = suite.run("script", "delete", account, "main", check=False)
    assert refused.returncode == 1, "the active one stays"
    suite.run("script", "activate", account, "other")
    suite.run("script", "delete", account, "main")
    suite.run("script", "activate", account)
    assert [(row["name"], row["active"]) for row in suite.json("script", "list", account)] == [("other", False)]
    assert suite.run("script", "show", account, "main", check=False).returncode == 1
    assert suite.run("script", "put", "nobody@example.test", "x", stdin="keep;", check=False).returncode == 1


def test_an_exports_scripts_are_files(suite):
    account = suite.add_account("exported@example.test")
    suite.run("script", "put", account, "holiday", "--activate", stdin="keep;")
    suite.imap(account).logout()
    done = suite.json("export", "account", account, suite.dir / "out")
    assert done["scripts"] == 1
    assert (suite.dir / "out/sieve/active").resolve().read_text() == "keep;"


def test_an_account_is_removed_with_its_mail(suite):
    account = suite.add_account("leaving@example.test")
    for _ in range(3):
        suite.send(account)
    suite.wait_messages(account, 3)
    before = figures(suite)
    suite.run("account", "remove", account, "--erase")
    assert figures(suite) == before - 3
    suite.add_account(account)
    assert suite.messages(account) == [], "whoever gets the name later does not get the mail"


def figures(suite):
    rows = suite.run("--json", "check", "--offline", check=False).stdout
    text = next(line for line in rows.splitlines() if " messages," in line)
    return int(text.split(" accounts, ")[1].split(" messages")[0])


def test_check_looks_at_listeners(suite):
    suite.add_account(ALICE)
    assert suite.imap(ALICE, PASSWORD)
    assert of_imapd(suite) == []
    suite.config["imapd"]["listener"].append({"name": "late", "address": "127.0.0.1:1", "tls": "none"})
    suite.write_config()
    try:
        assert of_imapd(suite) == ["imapd has no listener late, which is configured: restart it"]
    finally:
        suite.config["imapd"]["listener"].pop()
        suite.write_config()


def of_imapd(suite):
    rows = json.loads(suite.run("--json", "check", "--offline", check=False).stdout)
    findings = [row["finding"] for row in rows if row["area"] == "listeners"]
    assert findings
    return [finding for finding in findings if "imapd" in finding]
