"""OpenAI's client for Node, as it comes, talks to the server. `npm install --prefix tests/node` fetches it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from serving import running, untrained

NODE = Path(__file__).parent / "node"


def test_the_node_client_finds_what_it_looks_for(tmp_path: Path) -> None:
    if not (NODE / "node_modules" / "openai").is_dir() or not shutil.which("node"):
        if os.environ.get("PLUME_REQUIRE_SERVICES"):
            pytest.fail("Node or its openai package is missing")
        pytest.skip("needs Node and `npm install --prefix tests/node`")
    with running(tmp_path, {"any": untrained()}) as served:
        asked = ["node", str(NODE / "client.mjs"), f"{served.url}/v1", "any"]
        done = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) == (NODE / "client.mjs").read_text().count("\n  async ")
        served.until(lambda: served.outstanding == 0)
