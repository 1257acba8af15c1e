"""Calls made up from the server's own OpenAPI description: no 5xx, no status that the description does not know.

    tests/outside/install; python benchmarks/api_calls.py [--calls 20000] [--seed 7] [--workers 2]

schemathesis makes the calls, right and wrong ones, until there have been so many, as the server itself counts them.
Prints one JSON line: calls by status, and how many of schemathesis's checks failed; exit 1 where any did.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from served import Served, plume, untrained

SCHEMATHESIS = Path(__file__).parents[1] / ".venv-outside" / "bin" / "schemathesis"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
HOOKS = '''\
import schemathesis

@schemathesis.hook
def map_body(context, body):
    """Half of what is asked should reach a model, and not write for long."""
    if isinstance(body, dict) and "model" in body and len(str(body)) % 2:
        body["model"] = "MODEL"
        if "stream" in body:
            body["stream"] = len(str(body)) % 3 == 0
    return body
'''


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    if not SCHEMATHESIS.is_file():
        print("needs schemathesis: run tests/outside/install", file=sys.stderr)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with plume(untrained("0.2M", folder), folder) as served:
            seed, failed = options.seed, 0
            (folder / "hooks.py").write_text(HOOKS.replace("MODEL", served.model))
            while failed == 0 and sum(calls(served).values()) < options.calls:
                failed = run(served, folder, seed, options.workers)
                seed += 1
            found = calls(served)
    fine = failed == 0 and not any(status.startswith("5") for status in found)
    row = {"bench": "api_calls", "calls": sum(found.values()), "statuses": found, "seeds": seed - options.seed}
    print(json.dumps({**row, "fine": fine}))
    return 0 if fine else 1


def run(served: Served, folder: Path, seed: int, workers: int) -> int:
    """One run of schemathesis; what it finds goes to standard error."""
    command = [str(SCHEMATHESIS), "run", f"{served.url}/openapi.json", "--checks", CHECKS, "--seed", str(seed)]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", "200", "--workers", str(workers)]
    command += ["--continue-on-failure", "--no-color", "--warnings", "off", "--generation-database", "none"]
    command += ["--request-timeout", "120"]  # the server may share its processors with others
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, stdout=sys.stderr, check=False).returncode


def calls(served: Served) -> Counter[str]:
    """Requests of the API by status, as the server counted them."""
    counted: Counter[str] = Counter()
    for family in text_string_to_metric_families(httpx.get(f"{served.url}/metrics", timeout=60).text):
        for sample in family.samples:
            if sample.name == "plume:http_requests_total" and sample.labels["route"] != "/metrics":
                counted[sample.labels["status"]] += int(sample.value)
    return counted


if __name__ == "__main__":
    sys.exit(main())
