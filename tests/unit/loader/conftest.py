from __future__ import annotations

from vllm_mindspore.bootstrap import import_mindspore

import_mindspore().set_context(mode=import_mindspore().GRAPH_MODE)
