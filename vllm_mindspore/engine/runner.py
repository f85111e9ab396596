"""Runs a network on one scheduler step at a time: static graphs, prepared inputs, no allocation per step."""

from __future__ import annotations

import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from logging import getLogger
from typing import Any

import mindspore as ms
import numpy as np

from vllm_mindspore.bootstrap import mindspore_turn, no_garbage_collection
from vllm_mindspore.engine.kv_cache import KVCache
from vllm_mindspore.engine.step import Float32Array, Int32Array, StepBatch, StepOutput
from vllm_mindspore.kernels import ops
from vllm_mindspore.kernels.errors import NotCaptured

logger = getLogger(__name__)


class _Bucket:
    """The graph of one padded shape: its ten input tensors, the numpy arrays that share their memory, and its launches.

    MindSpore's CPU tensors made by `Tensor.from_numpy` read the array's memory at every call, so a step writes its numbers
    into the arrays and launches the graph: nothing is created per step.
    """

    def __init__(self, num_tokens: int, num_seqs: int, max_blocks_per_seq: int) -> None:
        self.num_tokens = num_tokens
        self.token_ids = np.zeros(num_tokens, np.int32)
        self.position_ids = np.zeros(num_tokens, np.int32)
        self.slot_mapping = np.full(num_tokens, -1, np.int32)
        self.block_tables = np.zeros((num_seqs, max_blocks_per_seq), np.int32)
        self.context_lens = np.zeros(num_seqs, np.int32)
        self.q_seq_lens = np.zeros(num_seqs, np.int32)
        self.logits_indices = np.zeros(num_seqs, np.int32)
        self.counts = [np.zeros(1, np.int32) for _ in range(3)]
        arrays = [
            self.token_ids,
            self.position_ids,
            self.slot_mapping,
            self.block_tables,
            self.context_lens,
            self.q_seq_lens,
            self.logits_indices,
            *self.counts,
        ]
        self.tensors = tuple(ms.Tensor.from_numpy(array) for array in arrays)
        self._capture: ops.LaunchCapture | None = None

    def fill(self, batch: StepBatch) -> None:
        """Copy a step in. Rows past the true counts keep old numbers: every kernel obeys the counts."""
        num_tokens, num_seqs, num_logits = len(batch.token_ids), len(batch.q_seq_lens), len(batch.logits_indices)
        self.token_ids[:num_tokens] = batch.token_ids
        self.position_ids[:num_tokens] = batch.position_ids
        self.slot_mapping[:num_tokens] = batch.slot_mapping
        self.block_tables[:num_seqs, : batch.block_tables.shape[1]] = batch.block_tables
        self.context_lens[:num_seqs] = batch.context_lens
        self.q_seq_lens[:num_seqs] = batch.q_seq_lens
        self.logits_indices[:num_logits] = batch.logits_indices
        for count, value in zip(self.counts, (num_tokens, num_seqs, num_logits)):
            count[0] = value

    def run(self, model: Any) -> tuple[np.ndarray[Any, Any], ...]:
        """Logits, greedy tokens and hidden states of what was filled in last, padded."""
        if self._capture is None:
            with mindspore_turn:
                return tuple(result.asnumpy() for result in model(*self.tensors))
        self._capture.launch()
        return self._capture.results

    def capture(self, model: Any) -> None:
        """From now on, launch the graph's operators without MindSpore's runtime.

        Raises:
            NotCaptured: that does not give the same results.
        """
        max_blocks_per_seq = self.block_tables.shape[1]
        self.fill(_one_token_batch(0, max_blocks_per_seq))
        capture = ops.capture(model, self.tensors)
        self.fill(_one_token_batch(1, max_blocks_per_seq))
        # Before MindSpore has left what is right for this token where an operator of its own would have put it.
        capture.launch()
        if not all(np.array_equal(found[0], right[0]) for found, right in zip(capture.results, self.run(model))):
            raise NotCaptured("the network has operators that are not ours")
        self._capture = capture


def token_buckets(max_num_tokens: int) -> tuple[int, ...]:
    """Padded token counts for which a graph is compiled, ascending; the last is `max_num_tokens`.

    The CPU kernels obey the true counts, so padding costs nothing there and one graph serves every step.
    """
    return (max_num_tokens,)


class ModelRunner:
    """A network with its paged KV cache, ready to execute steps.

    Args:
        model: a network of `vllm_mindspore.models` with its weights loaded.
        num_blocks: KV cache blocks to allocate.
        num_host_blocks: blocks of the pool in host memory to which the scheduler may swap.
        block_size: tokens in a block.
        max_num_tokens: most new tokens in one step.
        max_num_seqs: most sequences in one step, and most rows that want logits.
        max_model_len: most tokens of one sequence.
        capture_launches: launch the graph's operators without MindSpore's runtime, once `warm_up` has run.
    """

    def __init__(
        self,
        model: Any,
        *,
        num_blocks: int,
        num_host_blocks: int = 0,
        block_size: int,
        max_num_tokens: int,
        max_num_seqs: int,
        max_model_len: int,
        capture_launches: bool = True,
    ) -> None:
        # MindSpore's own default is to run a network's Python at every call, operator by operator.
        ms.set_context(mode=ms.GRAPH_MODE)
        self.model = model
        self.max_num_tokens = max(max_num_tokens, max_num_seqs)
        self.max_num_seqs = max_num_seqs
        self.max_model_len = max_model_len
        self.kv_cache = KVCache(model.config, num_blocks, block_size, num_host_blocks)
        model.set_kv_cache(self.kv_cache.layers())
        self._block_size = block_size
        weakref.finalize(model, ops.release(model.get_parameters()))
        weakref.finalize(model, self.kv_cache.ahead.stop)  # before that: the last comes first
        max_blocks_per_seq = -(-max_model_len // block_size)
        self._capture_launches = capture_launches
        self._buckets = [
            _Bucket(bucket, max_num_seqs, max_blocks_per_seq) for bucket in token_buckets(self.max_num_tokens)
        ]
        self._compiling: Future[None] | None = None
        self._head_rows = np.zeros((max_num_seqs, model.config.hidden_size), np.float32)
        self._head_count = np.zeros(1, np.int32)
        self._head_tensors = (ms.Tensor.from_numpy(self._head_rows), ms.Tensor.from_numpy(self._head_count))

    def execute(self, batch: StepBatch) -> StepOutput:
        """Run one step: write the new keys and values into the cache, return logits of the rows that want them.

        A step of more than `max_num_tokens` tokens is run in pieces, which gives the same bits.

        Raises:
            ValueError: the batch is empty, or has more sequences than the runner was made for.
        """
        self.wait_for_graphs()
        num_logits = len(batch.logits_indices)
        if not len(batch.token_ids):
            raise ValueError("a step has no tokens")
        if max(len(batch.q_seq_lens), num_logits) > self.max_num_seqs:
            raise ValueError(
                f"a step has {len(batch.q_seq_lens)} sequences and {num_logits} rows that want logits, "
                f"the runner was made for {self.max_num_seqs}"
            )
        if len(batch.token_ids) <= self.max_num_tokens:
            return self._execute(batch)
        outputs = [_copied(self._execute(piece)) for piece in batch.pieces(self.max_num_tokens)]
        return StepOutput(*(np.concatenate(parts) for parts in zip(*(vars(output).values() for output in outputs))))

    def _execute(self, batch: StepBatch) -> StepOutput:
        num_tokens, num_logits = len(batch.token_ids), len(batch.logits_indices)
        bucket = next(bucket for bucket in self._buckets if bucket.num_tokens >= num_tokens)
        bucket.fill(batch)
        self.kv_cache.ahead.used(batch.slot_mapping[-1] // self._block_size)
        try:
            logits, greedy, hidden = bucket.run(self.model)
        finally:
            self.kv_cache.ahead.rest()
        return StepOutput(
            logits=logits[:num_logits], greedy_token_ids=greedy[:num_logits], hidden_states=hidden[:num_tokens]
        )

    def compute_logits(self, hidden_states: Float32Array) -> Float32Array:
        """Logits `[n, vocab_size]` of any number of hidden states `[n, hidden_size]` (after the final norm)."""
        logits = np.empty((len(hidden_states), self.model.config.vocab_size), np.float32)
        for start in range(0, len(hidden_states), self.max_num_seqs):
            rows = hidden_states[start : start + self.max_num_seqs]
            self._head_rows[: len(rows)] = rows
            self._head_count[0] = len(rows)
            with mindspore_turn:
                result, _ = self.model.lm_head_cell(*self._head_tensors)
            logits[start : start + len(rows)] = result.asnumpy()[: len(rows)]
        return logits

    def warm_up(self) -> None:
        """Compile the graph of every bucket and capture its launches in a thread, while an engine goes on to get ready. Before the first step.

        That step waits for the end of it, and raises what went wrong.
        """
        thread = ThreadPoolExecutor(1, thread_name_prefix="compile")
        self._compiling = thread.submit(self._compile)
        thread.shutdown(wait=False)

    def wait_for_graphs(self) -> None:
        """Return when what `warm_up` began is done.

        Raises:
            Exception: what went wrong there, each time.
        """
        if self._compiling is not None:
            self._compiling.result()
            self._compiling = None

    @no_garbage_collection()
    def _compile(self) -> None:
        """Run a token in the cache's first slot."""
        started = time.perf_counter()
        try:
            with mindspore_turn:
                for bucket in self._buckets:
                    if self._capture_launches:
                        bucket.capture(self.model)
                    else:
                        bucket.fill(_one_token_batch(0, bucket.block_tables.shape[1]))
                        bucket.run(self.model)
        except NotCaptured as error:
            logger.warning("Every operator is launched by MindSpore's runtime, which takes longer: %s.", error)
        except Exception:
            logger.exception("The network cannot be compiled, so no step can be run.")
            raise
        logger.info("Compiled %d graph(s) in %.2f s", len(self._buckets), time.perf_counter() - started)
        self.kv_cache.ahead.start()


def _copied(output: StepOutput) -> StepOutput:
    """Independent of the device memory that the next step overwrites."""
    return StepOutput(*(array.copy() for array in vars(output).values()))


def _one_token_batch(token_id: int, max_blocks_per_seq: int) -> StepBatch:
    def vector(value: int) -> Int32Array:
        return np.array([value], np.int32)

    return StepBatch(
        token_ids=vector(token_id),
        position_ids=vector(0),
        slot_mapping=vector(0),
        block_tables=np.zeros((1, max_blocks_per_seq), np.int32),
        context_lens=vector(1),
        q_seq_lens=vector(1),
        logits_indices=vector(0),
    )
