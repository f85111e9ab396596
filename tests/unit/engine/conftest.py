from __future__ import annotations

from vllm_mindspore.bootstrap import import_mindspore

import_mindspore()
