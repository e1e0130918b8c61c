"""How a check says what it found, and how it runs a tool."""

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
TOOLS = TOP / ".tools"
SCRIPTS = Path(sys.prefix) / "bin"


class Failed(Exception):
    """What is checked is wrong."""


class Skipped(Exception):
    """It could not be checked, for this reason."""


def run(*command: object, env: dict[str, str] | None = None) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run([str(word) for word in command], cwd=TOP, env=env, capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise Failed((done.stdout + done.stderr).strip())
    return done.stdout


def refused(*command: object, env: dict[str, str] | None = None) -> str:
    """What a command says against what it was given; it must fail."""
    try:
        output = run(*command, env=env)
    except Failed as refusal:
        return str(refusal)
    raise Failed(f"not refused: {' '.join(str(word) for word in command)}\n{output[:500]}")


def equal(found: object, expected: object, what: str) -> None:
    """Compares, and says what differs."""
    if found != expected:
        raise Failed(f"{what} is {found!r}, expected {expected!r}")
