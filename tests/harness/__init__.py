"""Real servers for the tests: each is started on free ports, asked whether it is ready, and stopped whatever happens."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / "tools"
