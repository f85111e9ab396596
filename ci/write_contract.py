"""Fill in an adapter's contract from the vLLM of the environment that runs this: .envs/vllm083/bin/python ci/write_contract.py v0_8_3_v0

Reads the names in compat/<adapter>/contract.toml and writes what each stands for behind it, see compat/common/drift.py.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# vLLM as it is without us. The directory of this script, and not the checkout, is where Python looks first: the installed package is used.
os.environ["VLLM_PLUGINS"] = ""
os.environ.setdefault("VLLM_LOGGING_LEVEL", "CRITICAL")

if __name__ == "__main__":
    from vllm_mindspore.compat.common.drift import FILE, fill_in

    adapter = sys.argv[1]
    missing = fill_in(Path(__file__).parents[1] / "compat" / adapter / FILE, adapter)
    sys.exit("\n".join(missing))
