"""The one file: mistakes are found, with the line and the nearest known key."""

import subprocess

import pytest
import tomllib

from suite import Suite, program, wait_for


@pytest.fixture
def folder():
    suite = Suite()
    yield suite
    suite.remove()


def check(suite, env=None):
    return suite.run("config", "check", check=False, env=env)


def test_the_example_is_valid_and_names_every_section(folder):
    example = subprocess.run([program(), "config", "example"], capture_output=True, text=True, check=True).stdout
    (folder.dir / "posthouse.toml").write_text(example)
    result = check(folder)
    assert result.returncode == 0, result.stdout + result.stderr
    for section in ["suite", "smtpd", "queued", "relayd", "deliverd", "stored", "imapd", "authd", "keyd"]:
        assert f"[{section}]" in example, section
    tomllib.loads(example)


def test_limits_that_contradict_each_other_are_told(folder):
    told = lambda: {line for line in folder.run("check", "--offline", check=False).stdout.splitlines() if " limits " in line}
    folder.config["queued"]["min_free"] = 128 * 1024 * 1024
    folder.write_config()
    (fine,) = told()
    assert fine.startswith("fine")
    folder.config["smtpd"] |= {"limits": {"message_bytes": 300_000_000}, "relay_networks": ["192.0.2.0/24"]}
    folder.config["imapd"]["append_bytes"] = 300_000_000
    folder.write_config()
    found = told()
    assert len(found) == 4 and all(line.startswith("warning") for line in found), found
    for words in ("smtpd.limits.message_bytes (300000000) is more than stored.message_bytes", "imapd.append_bytes",
                  "queued.min_free", "smtpd.relay_networks has 192.0.2.0/24"):
        assert any(words in line for line in found), (words, found)


@pytest.mark.parametrize("text,expected", [
    ("[suite]\nhostnam = 'a.test'\n", ["posthouse.toml:2", "suite.hostnam", "hostname"]),
    ("[smtpdd]\n", ["posthouse.toml:1", "smtpdd", "smtpd"]),
    ("[smtpd.limits]\nrecipient = 5\n", ["recipient", "recipients"]),
    ("[queued]\nretry_min = 'soon'\n", ["posthouse.toml:2", "retry_min"]),
    ("[suite\n", ["posthouse.toml"]),
    ("[relayd]\ntls = 'sometimes'\n", ["posthouse.toml:2", "relayd.tls", "dane-only"]),
])
def test_mistakes_name_their_place_and_the_nearest_key(folder, text, expected):
    (folder.dir / "posthouse.toml").write_text(text)
    result = check(folder)
    assert result.returncode != 0
    for word in expected:
        assert word in result.stdout + result.stderr, (word, result.stdout, result.stderr)


def test_a_daemon_refuses_to_start_with_an_unknown_key(folder):
    folder.config["imapd"]["listner"] = 1
    folder.write_config()
    result = folder.run("run", "imapd", check=False)
    assert result.returncode != 0 and "did you mean listener?" in result.stdout + result.stderr


def test_the_environment_overrides(folder):
    shown = folder.run("config", "show", "suite", env={"POSTHOUSE_SUITE__HOSTNAME": "other.example.test"})
    assert "other.example.test" in shown.stdout
    result = check(folder, env={"POSTHOUSE_SMTPD__NONSENSE": "1"})
    assert result.returncode != 0 and "nonsense" in (result.stdout + result.stderr).lower()


def test_completions_and_manual_pages_are_generated(folder):
    for shell in ["bash", "zsh", "fish"]:
        assert "posthouse" in folder.run("completions", shell).stdout
    out = folder.dir / "man"
    folder.run("man", "--out", out)
    pages = [page.name for page in out.iterdir()]
    assert "posthouse.1" in pages and len(pages) > 5


def test_a_reload_counts_for_new_sessions(make_suite):
    suite = make_suite()

    def announced():
        with suite.smtp() as client:
            return client.esmtp_features["size"]

    before = announced()
    old_session = suite.smtp()
    suite.config.setdefault("smtpd", {}).setdefault("limits", {})["message_bytes"] = 54321
    suite.write_config()
    suite.run("reload")
    wait_for(lambda: announced() == "54321", "the new limit")
    old_session.ehlo()
    assert old_session.esmtp_features["size"] == before != "54321"
    old_session.quit()
    # What is not sound changes nothing.
    suite.config["smtpd"]["limits"]["message_byts"] = 1
    suite.write_config()
    suite.run("reload")
    assert announced() == "54321"
