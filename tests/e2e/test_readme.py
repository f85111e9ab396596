"""The README's commands, as a user types them: a server by `make serve`, and the requests to it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.serving import ANSWER, serving

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
PORT = 8000
"""The README's."""


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.skipif(not is_free(PORT), reason=f"port {PORT}, which the README names, is taken")
def test_what_make_serve_starts_answers_as_the_readme_says(demo_model: Path, tmp_path: Path) -> None:
    (curl,) = re.findall(r"^```sh\n(curl .*?)^```", README, re.MULTILINE | re.DOTALL)
    (program,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    environment = Path(sys.prefix)
    # With the environment of this test, as it is: -o keeps make from installing it anew.
    make = ["make", "-C", str(ROOT), f"VENV={environment}", "-o", f"{environment}/.installed", "serve"]
    with serving(make, tmp_path / "log", PORT) as server:
        assert "Application startup complete" in server.log()
        for command in (["bash", "-c", curl], [sys.executable, "-c", program]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
            assert ANSWER in done.stdout
        assert server.terminate() == []
