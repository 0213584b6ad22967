"""The compose file as YAML reads it. (Its agreement with the topology is a test of tests/house.)"""

import yaml

from suite import OPTIONAL, ROLES, ROOT


def test_compose_file():
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    services = compose["services"]
    assert set(services) == set(ROLES + OPTIONAL)
    volumes = set(compose["volumes"])
    for name, service in services.items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
        assert service["command"] == ["run", name]
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source.startswith("./") or source in volumes, volume
        for other in service.get("depends_on", []):
            assert other in services
        assert ("networks" in service) != (service.get("network_mode") == "none")
    assert (ROOT / services["keyd"]["build"]["dockerfile"]).exists()
