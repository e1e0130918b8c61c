"""Names of settings, here and in the binary: it refuses to start with one that it doesn't know."""

import re

import chart
import stack
from report import TOP, Failed

CONFIG = TOP / "crates/fanfare/src/config"


def check_the_binary_knows_every_variable():
    known = {name for path in CONFIG.rglob("*.rs") for name in re.findall(r'variable: "(\w+)"', path.read_text())}
    used = {name for _, pod in chart.pods() for container in pod["containers"] for name in chart.environment(container)}
    for service in stack.services().values():
        used |= {name for name in service.get("environment", {}) if name.startswith("FANFARE_")}
    if not used <= known:
        raise Failed(f"not in {CONFIG.relative_to(TOP)}: {', '.join(sorted(used - known))}")
