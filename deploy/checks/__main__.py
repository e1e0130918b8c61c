"""Every check of what Fanfare is deployed with, a line for each. Run by scripts/check-deploy, which installs the tools."""

import os
import sys
import traceback

import chart
import image
import proxy
import settings
import stack
from report import Failed, Skipped


def main() -> int:
    failed = 0
    for module in (chart, image, stack, proxy, settings):
        for name, check in vars(module).items():
            if not name.startswith("check_"):
                continue
            sentence = f"{module.__name__}: {name.removeprefix('check_').replace('_', ' ')}"
            try:
                check()
            except Skipped as reason:
                # What is only sometimes checked is not checked.
                failed += "CI" in os.environ
                print(f"skipped  {sentence}: {reason}", flush=True)
            except Failed as problem:
                failed += 1
                print(f"FAILED   {sentence}\n{problem}", flush=True)
            except Exception:  # A mistake in the check itself; the others still run.
                failed += 1
                print(f"FAILED   {sentence}\n{traceback.format_exc()}", flush=True)
            else:
                print(f"ok       {sentence}", flush=True)
    if failed:
        print(f"{failed} failed", file=sys.stderr)
    return 1 if failed else 0


sys.exit(main())
