"""Runs measurements in processes of their own."""

import json
import subprocess
import sys


def run(python, arguments, threads) -> dict:
    """Runs one measurement in a process and returns the JSON it prints last."""
    command = [str(python), *map(str, arguments), "--threads", str(threads)]
    print("#", " ".join(command), file=sys.stderr, flush=True)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])
