"""The published suites of SPF (RFC 7208) and ARC, through `posthouse judge` and a real name server. tests/setup gets the first with
the package that carries it; the second is in no package, so it runs where ARC_SUITE names its file. What does not come out as
there is listed with its reason in tests/lib/published_suites.toml, and the list may have no entry too many."""

import os
import tarfile
import tomllib

import pytest
import yaml

from names import SILENCE, Names
from suite import ROOT, Suite

MISSES = tomllib.loads((ROOT / "tests/lib/published_suites.toml").read_text())
SUITES = ROOT / "target/suites"


@pytest.fixture(scope="module")
def house():
    """A configuration to judge by, and the name server."""
    suite = Suite(config={"suite": {"hostname": "mx.example.test"}})
    names = Names()
    yield suite, names
    names.close()
    suite.remove()


def judge(house, message, **options):
    suite, names = house
    file = suite.dir / "message.eml"
    file.write_bytes(message)
    arguments = [f"--{key}={value}" for key, value in options.items()]
    return suite.json("judge", *arguments, "--nameserver", f"127.0.0.1:{names.port}", "--dns-timeout", 1, file)["results"]


def missed(suite, outcomes):
    """Compares the cases that came out otherwise with the list."""
    wrong = {case: f"{got}, expected {wanted}" for case, (got, wanted) in outcomes.items() if got not in wanted}
    known = MISSES[suite]
    print(f"{suite}: {len(outcomes) - len(wrong)} of {len(outcomes)}", wrong)
    assert wrong.keys() == known.keys(), {"new": {k: v for k, v in wrong.items() if k not in known}, "now right": known.keys() - wrong.keys()}


def spf_scenarios():
    found = sorted(SUITES.glob("pyspf-*.tar.gz"))
    if not found:
        pytest.skip("the SPF suite is not there (tests/setup)")
    with tarfile.open(found[-1]) as archive:
        (member,) = [one for one in archive.getmembers() if one.name.endswith("/rfc7208-tests.yml")]
        return list(yaml.safe_load_all(archive.extractfile(member).read()))


def zone(data):
    """The suite's records; those of type SPF stand for TXT where a name has none."""
    zones = {}
    for owner, records in data.items():
        own_txt = any(isinstance(record, dict) and "TXT" in record for record in records)
        kept = []
        for record in records:
            if record == "TIMEOUT":
                kept.append(SILENCE)
                continue
            for kind, value in record.items():
                if value == "TIMEOUT":
                    kept.append((kind, SILENCE))
                elif value != "NONE":
                    kept.append((kind, value))
                    if kind == "SPF" and not own_txt:
                        kept.append(("TXT", value))
        zones[owner] = kept
    return zones


def test_spf(house):
    outcomes = {}
    for scenario in spf_scenarios():
        house[1].load(zone(scenario["zonedata"]))
        for case, data in scenario["tests"].items():
            sender = data["mailfrom"]
            # An address without a local part cannot be written: RFC 7208 2.4 has postmaster in its place.
            asked = f"postmaster{sender}" if sender.startswith("@") else sender
            if " " in asked:
                asked = '"{}"@{}'.format(*asked.rsplit("@", 1))
            try:
                results = judge(house, b"From: a@b.invalid\r\n\r\n", client=data["host"], helo=data["helo"], sender=asked)
            except AssertionError as error:
                got = f"not asked: {error}"[:200]
            else:
                found = results["spf_mail_from"] or results["spf_helo"] or {"result": "none"}
                got = found["result"]
                explanation = data.get("explanation")
                if explanation not in (None, "DEFAULT") and found.get("explanation") != explanation and got == "fail":
                    got = f"fail because {found.get('explanation')!r}"
            wanted = data["result"]
            outcomes[case] = (got, [wanted] if isinstance(wanted, str) else wanted)
    assert len(outcomes) > 190
    missed("spf", outcomes)


def test_arc(house):
    path = os.environ.get("ARC_SUITE")
    if not path:
        pytest.skip("ARC_SUITE does not name the file of the ARC suite (no package carries it)")
    outcomes = {}
    with open(path, "rb") as file:
        scenarios = [scenario for scenario in yaml.safe_load_all(file) if scenario]
    for scenario in scenarios:
        # Their keys are short: the suite's own resolver serves them as they are.
        house[1].load({owner: [("TXT", text)] for owner, text in scenario["txt-records"].items()})
        for case, data in scenario["tests"].items():
            message = data["message"].replace("\n", "\r\n").encode()
            # Nothing is said there of a chain whose newest seal itself says that it failed.
            wanted = data["cv"].lower()
            got = judge(house, message, client="192.0.2.1")["arc"]["result"]
            outcomes[case] = (got, [wanted] if wanted else ["none", "fail"])
    accepted = [case for case, (got, wanted) in outcomes.items() if got == "pass" and "pass" not in wanted]
    assert not accepted, f"chains passed that should not: {accepted}"
    assert len(outcomes) > 150
    missed("arc", outcomes)
