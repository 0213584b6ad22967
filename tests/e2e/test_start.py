"""`posthouse up`: the demo of the README, and the second start."""

import os
import re
import socket
import subprocess
import time

from suite import OPTIONAL, ROLES, Suite, program, wait_for


def _free(*ports):
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True


def test_demo_then_a_second_start_in_under_two_seconds():
    suite = Suite()
    try:
        # As `make run` does: an empty folder, if nobody else uses its ports now.
        if _free(2525, 2587, 4465, 2424, 1143, 9993):
            (suite.dir / "posthouse.toml").unlink()

        def up():
            log = open(suite.log, "wb")
            return subprocess.Popen([program(), "--dir", suite.dir, "up", "--demo"], stdin=subprocess.DEVNULL, stdout=log,
                                    stderr=log, cwd="/", start_new_session=True, **suite._account())

        def said(pattern, seconds=40):
            def found():
                assert suite.process.poll() is None, suite.tail(80)
                return re.search(pattern, suite.log.read_text(errors="replace"))
            return wait_for(found, lambda: f"{pattern}: {suite.tail(80)}", seconds)

        suite.process = up()
        password = said(r"alice@demo\.test +password (\S+)")[1]
        said("Ctrl-C ends it")
        text = suite.log.read_text()
        host, port = re.search(r"imaps +(\S+):(\d+)", text).groups()
        suite.host, suite.ports["imaps"] = host.replace("0.0.0.0", "127.0.0.1"), int(port)
        for word in ["swaks --server", "curl --insecure", "queue list"]:
            assert word in text
        (mail,) = suite.wait_messages("alice@demo.test", 1, password=password)
        assert b"Welcome" in mail
        suite.stop()

        began = time.monotonic()
        suite.process = up()
        said("Posthouse is up")
        took = time.monotonic() - began
        said("Ctrl-C ends it")
        assert suite.messages("alice@demo.test", password=password) == [mail]
        assert took < 2, f"the second start took {took:.2f} s"
    finally:
        suite.remove()


def test_daemons_end_with_their_supervisor(make_suite):
    suite = make_suite()
    pids = suite.pids()
    assert len(pids) == len(ROLES)
    suite.process.kill()
    suite.process.wait()

    def gone():
        return not any(os.path.exists(f"/proc/{pid}") for pid in pids.values())

    wait_for(gone, lambda: f"daemons end: {pids}", 30)
    # And everything starts again on what they left.
    suite.start()


def test_reload_and_metrics(make_suite):
    suite = make_suite()
    suite.run("reload")
    metrics = suite.run("metrics").stdout
    assert re.search(r"^[a-z_]+(\{.*\})? [0-9.e+]+$", metrics, re.MULTILINE), metrics[:500]
    rows = suite.json("status")
    assert {row["role"] for row in rows if row["state"] == "up"} == set(ROLES)
    assert {row["role"] for row in rows if row["state"] == "off"} == set(OPTIONAL)


def test_check_says_what_is_right_and_wrong(make_suite):
    suite = make_suite()
    suite.add_domain("example.test")
    result = suite.run("check", "--offline", check=False)
    assert result.returncode in (0, 3), result.stderr
    assert "store" in (result.stdout + result.stderr).lower()
