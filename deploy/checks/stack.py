"""docker-compose.yml, read by the real parser."""

import importlib.util
import json
import os
from pathlib import Path

from report import TOP, Failed, equal, refused, run

SECRETS = {"FANFARE_AUTH_SECRET": "secret", "FANFARE_PUBLISH_KEYS": "try=key"}


def config(**variables: str) -> tuple[tuple[object, ...], dict[str, str]]:
    """The command that reads it, and its environment: nothing of the machine's own, no .env file."""
    # The package's own command always exits with 0.
    binary = Path(importlib.util.find_spec("compose").submodule_search_locations[0]) / "docker-compose"
    binary.chmod(0o755)
    command = (binary, "--env-file", os.devnull, "--file", TOP / "docker-compose.yml", "config", "--format", "json")
    return command, {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}


def services() -> dict[str, dict]:
    command, environment = config(**SECRETS)
    return json.loads(run(*command, env=environment))["services"]


def check_the_parser_accepts_it():
    equal(sorted(services()), ["edge-a", "edge-b", "nginx", "publisher", "redis"], "services")


def check_it_starts_with_no_secret_of_its_own():
    for missing in SECRETS:
        command, environment = config(**{name: value for name, value in SECRETS.items() if name != missing})
        message = refused(*command, env=environment)
        if missing not in message:
            raise Failed(f"{missing} is not named: {message}")


def check_only_nginx_is_reached_from_outside_and_from_this_machine_only():
    for name, service in services().items():
        addresses = [port.get("host_ip") for port in service.get("ports", [])]
        equal(addresses, ["127.0.0.1"] if name == "nginx" else [], f"{name}'s addresses")


def check_redis_evicts_nothing_and_keeps_what_it_has():
    command = " ".join(services()["redis"]["command"])
    for option in ("--maxmemory-policy noeviction", "--appendonly yes"):
        equal(option in command, True, f"whether Redis runs with {option}")


def check_edges_may_drain_to_the_end():
    for name in ("edge-a", "edge-b", "publisher"):
        equal(services()[name]["stop_grace_period"], "40s", f"{name}'s stop_grace_period")
