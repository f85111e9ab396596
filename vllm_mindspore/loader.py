"""Hugging Face checkpoints, read into a network one weight after the other.

Files are memory-mapped and each weight is packed straight from its file, so the process never holds the weights twice. Pickles of
torch before 1.6 cannot be mapped: they are in memory until all is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from logging import getLogger
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import is_zipfile

import mindspore as ms
import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.constants import HF_HUB_OFFLINE
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError, safe_open
from tqdm import tqdm

from vllm_mindspore.bootstrap import mindspore_turn
from vllm_mindspore.errors import UserError
from vllm_mindspore.kernels import ops
from vllm_mindspore.kernels.errors import NotFinite
from vllm_mindspore.models.config import ModelConfig
from vllm_mindspore.models.registry import model_class
from vllm_mindspore.weight_files import FORMS, NOT_WEIGHTS, PATTERNS, index_of, without_index

logger = getLogger(__name__)

_IGNORED = (
    *(".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached", ".masked_bias", ".attn.bias"),
    *(".k_scale", ".v_scale", ".kv_scale"),
)
"""Ends of names that old checkpoints hold and nobody needs; the last are of caches in FP8."""
_STORAGE = {torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float32: "float32"}


def load_model(
    path_or_id: str,
    hf_config: Any,
    dtype: str,
    *,
    revision: str | None = None,
    download_dir: str | None = None,
    from_modelscope: bool = False,
    show_progress: bool = True,
    weight_dtype: str | None = None,
    max_position: int,
) -> ms.nn.Cell:
    """Make the network of a checkpoint.

    Args:
        path_or_id: a folder, or the id of a model on a hub.
        hf_config: its `transformers.PretrainedConfig`.
        dtype: bfloat16, float16 or float32; weights of another dtype are converted.
        revision: of the hub's model.
        download_dir: where downloads are kept, instead of the hub's cache.
        from_modelscope: whether the hub is ModelScope, not Hugging Face's.
        show_progress: whether a progress bar is shown.
        weight_dtype: int8, if the weights are to be quantised as they are read.
        max_position: how many positions a sequence may have.

    Raises:
        UserError: the checkpoint is missing, damaged, incomplete, or of a model that we do not have.
    """
    folder = _folder(path_or_id, revision, download_dir, from_modelscope)
    config = ModelConfig.from_hf(hf_config, dtype, source=folder)
    checkpoint = Checkpoint(folder, dtype, show_progress, weight_dtype)
    with checkpoint.reading(config), mindspore_turn:
        return model_class(config.architecture)(config, checkpoint, max_position)


def _folder(path_or_id: str, revision: str | None, download_dir: str | None, from_modelscope: bool) -> Path:
    if Path(path_or_id).is_dir():
        return Path(path_or_id)
    hub = "ModelScope" if from_modelscope else "the Hugging Face hub"
    if from_modelscope:  # which vLLM has imported by now, or refused to start without
        download = import_module("modelscope.hub.snapshot_download").snapshot_download
    else:
        download = snapshot_download

    def fetch(*patterns: str) -> Path:
        return Path(
            download(
                path_or_id,
                revision=revision,
                cache_dir=download_dir,
                allow_patterns=list(patterns),
                ignore_patterns=list(NOT_WEIGHTS),
                local_files_only=HF_HUB_OFFLINE,
            )
        )

    try:
        for form in FORMS:
            folder = fetch("config.json", index_of(form))
            index = folder / index_of(form)
            fetch(*(_names_in(index) if index.is_file() else [PATTERNS[form]]))
            if any(folder.glob(PATTERNS[form])):
                return folder
    except UserError:
        raise
    except HFValidationError:
        raise UserError(f"{path_or_id} is neither a folder nor the id of a model on {hub}.") from None
    except PermissionError as error:
        home = "MODELSCOPE_CACHE" if from_modelscope else "HF_HOME"
        raise UserError(
            f"The model {path_or_id} cannot be stored: {error.filename} is not writable. Set {home} or --download-dir to a folder that is."
        ) from None
    except Exception as error:  # the hub's client raises its own, requests' and the operating system's
        sentence = " ".join(str(error).split())
        raise UserError(
            f"The model {path_or_id} is no folder here and cannot be fetched from {hub}: {sentence}"
        ) from error
    where = "in the cache, and HF_HUB_OFFLINE keeps from fetching them" if HF_HUB_OFFLINE else f"on {hub}"
    raise UserError(f"{path_or_id} has no weights ({' or '.join(PATTERNS.values())}) {where}.")


def _names_in(index: Path) -> list[str]:
    """The shards that an index lists."""
    try:
        return sorted({str(name) for name in json.loads(index.read_text())["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{index} is not the index of a sharded checkpoint: fetch it again.") from None


class _Stored(NamedTuple):
    """Matrices as they are in the file, or as they lie packed in it."""

    arrays: list[np.ndarray[Any, Any]]
    dtype: str
    scales: list[np.ndarray[Any, Any]] | None
    """Of int8: what the numbers of each row are multiples of."""

    def in_order(self, order: Sequence[np.ndarray[Any, Any] | None]) -> _Stored:
        def sort(parts: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
            return [part if wanted is None else part[wanted] for part, wanted in zip(parts, order)]

        return _Stored(sort(self.arrays), self.dtype, self.scales and sort(self.scales))

    def to_pack_as(self, dtype: str) -> _Stored:
        """Themselves; of int8 that is to be floats, what it stands for, in float32."""
        return self if self.scales is None or dtype == "int8" else self.in_float32()

    def in_float32(self) -> _Stored:
        """Copies of what it stands for."""
        wide = [_in_float32(array, self.dtype) for array in self.arrays]
        if self.scales is not None:
            wide = [array * scale[:, None] for array, scale in zip(wide, self.scales)]
        return _Stored(wide, "float32", None)


def _in_float32(array: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


class Checkpoint:
    """Tensors of a folder by name; the `Weights` that networks ask."""

    def __init__(self, folder: Path, dtype: str, show_progress: bool, weight_dtype: str | None = None) -> None:
        self.folder = folder
        self._dtype, self._weight_dtype = dtype, weight_dtype or dtype
        self._show_progress = show_progress
        self._files: dict[Path, Any] = {}
        self._all_mapped = True
        self._where: dict[str, Path] = {}
        files, has_index = self._list_files()
        for file in files:
            for name in self._open(file):
                if name in self._where and not has_index:
                    raise UserError(f"{self._where[name]} and {file} both hold {name}: keep the one that is right.")
                self._where[name] = file
        self._unread = set(self._where)

    @contextmanager
    def reading(self, config: ModelConfig) -> Iterator[None]:
        """Show progress meanwhile, check at the end that nothing was left over, and close the files.

        Left over may be a head that is tied to the embedding, and the layers for multi-token prediction, which are a network of
        their own that drafts tokens.

        Raises:
            UserError: the checkpoint holds weights that the network did not ask for.
        """
        self._progress = tqdm(
            total=sum(file.stat().st_size for file in self._files),
            desc="Loading weights",
            unit="B",
            unit_scale=True,
            disable=not self._show_progress,
        )
        try:
            with self._progress:
                yield
            drafts = [f"model.layers.{config.num_layers + i}." for i in range(config.num_draft_layers)]
            unused = {name for name in self._unread if name.startswith(tuple(drafts))}
            if unused:
                logger.info(
                    "%d weights of the %d layer(s) for multi-token prediction are not used", len(unused), len(drafts)
                )
            left = sorted(name for name in self._unread - unused if not name.endswith(_IGNORED))
            if config.tie_word_embeddings and "lm_head.weight" in left:
                left.remove("lm_head.weight")
            if left:
                raise UserError(
                    f"{self._where[left[0]]} holds {left[0]}, which the model that its config.json describes does not have"
                    f"{f' (and {len(left) - 1} more)' if len(left) > 1 else ''}: config.json and weights are of different models."
                )
        finally:
            self._files.clear()

    def matrix(
        self,
        names: Sequence[str],
        rows: Sequence[int],
        columns: int,
        *,
        interleave: bool = False,
        order: Sequence[np.ndarray[Any, Any] | None] | None = None,
        dtype: str | None = None,
    ) -> ms.Tensor:
        """See `models.weights.Weights`."""
        read = self._stored(names, rows, columns)
        target = dtype or self._dtype_of(names)
        weight = read.to_pack_as(target)
        if order is not None:
            weight = weight.in_order(order)
        with self._refusing_infinity(names):
            packed = ops.pack_weight(weight.arrays, target, weight.dtype, interleave, weight.scales)
        self._finish(read)
        return packed

    def matrices(
        self, names: Sequence[Sequence[str]], rows: Sequence[int], columns: int, *, interleave: bool = False
    ) -> ms.Tensor:
        """See `models.weights.Weights`."""
        target = self._dtype_of([name for parts in names for name in parts])
        packed = ops.PackedWeights(len(names), sum(rows), columns, target, interleave)
        for group, parts in enumerate(names):
            read = self._stored(parts, rows, columns)
            weight = read.to_pack_as(target)
            with self._refusing_infinity(parts):
                packed.put(group, weight.arrays, weight.dtype, weight.scales)
            self._finish(read)
        return packed.tensor()

    def heads(
        self, name: str, heads: int, rows: int, columns: int, part: slice, *, transpose: bool = False
    ) -> ms.Tensor:
        """See `models.weights.Weights`."""
        read = self._stored([name], [heads * rows], columns)
        (whole,), stored, _ = read.to_pack_as(self._dtype)
        parts = whole.reshape(heads, rows, columns)[:, part]
        n, k = (columns, parts.shape[1]) if transpose else (parts.shape[1], columns)
        packed = ops.PackedWeights(heads, n, k, self._dtype)
        with self._refusing_infinity([name]):
            for head, matrix in enumerate(parts):
                packed.put(head, [np.ascontiguousarray(matrix.T if transpose else matrix)], stored)
        self._progress.update(read.arrays[0].reshape(heads, rows, columns)[:, part].nbytes)
        self._forget(read.arrays)
        return packed.tensor()

    def vector(self, names: Sequence[str], sizes: Sequence[int]) -> ms.Tensor:
        """See `models.weights.Weights`."""
        parts = []
        for name, size in zip(names, sizes):
            array, dtype = self._read(name, (size,))
            self._progress.update(array.nbytes)
            parts.append(_in_float32(array, dtype))
        joined = np.concatenate(parts)
        if not np.isfinite(joined).all():
            raise self._not_finite(names)
        return ms.Tensor.from_numpy(joined)

    def _stored(self, names: Sequence[str], rows: Sequence[int], columns: int) -> _Stored:
        parts = [
            self._read_int8(name, n, columns) if self._is_int8(name) else (*self._read(name, (n, columns)), None)
            for name, n in zip(names, rows)
        ]
        stored = [_Stored([array], dtype, None if scale is None else [scale]) for array, dtype, scale in parts]
        if len({part.dtype for part in stored}) > 1:
            copies = [part.in_float32() for part in stored]
            self._forget([array for part in stored for array in part.arrays])
            stored = copies
        scales = [scale for part in stored for scale in part.scales or ()]
        return _Stored([array for part in stored for array in part.arrays], stored[0].dtype, scales or None)

    def _finish(self, read: _Stored) -> None:
        self._progress.update(sum(array.nbytes for array in read.arrays))
        self._forget(read.arrays)

    def _forget(self, arrays: Sequence[np.ndarray[Any, Any]]) -> None:
        """Let go of what was read; it may be read again, which memory that no file is behind would answer with zeros."""
        if self._all_mapped:
            ops.forget(arrays)

    def _file_of(self, name: str) -> Path:
        """Where a tensor lies that was read, packed or not."""
        return self._where[name if name in self._where else f"{name}_packed"]

    def _is_int8(self, name: str) -> bool:
        """Whether the checkpoint holds it as compressed-tensors does."""
        return f"{name}_scale" in self._where

    def _dtype_of(self, names: Sequence[str]) -> str:
        """That matrices are packed to, one beside the other."""
        return "int8" if all(map(self._is_int8, names)) else self._weight_dtype

    def _read_int8(self, name: str, rows: int, columns: int) -> tuple[np.ndarray[Any, Any], str, np.ndarray[Any, Any]]:
        """`[rows, columns]` of int8 and a scale for each row, stored by compressed-tensors: plainly, or four numbers to an int32, plus 128."""
        packed = f"{name}_packed"
        if packed in self._where:
            words = self._tensor(packed, (rows, -(-columns // 4)), {torch.int32: "int32"}).numpy()
            numbers = (words.view(np.uint8)[:, :columns] ^ 0x80).view(np.int8)
            self._forget([words])
        else:
            numbers = self._tensor(name, (rows, columns), {torch.int8: "int8"}).numpy()
        scale = self._tensor(f"{name}_scale", (rows, 1), _STORAGE).float().numpy().ravel()
        # What else may stand beside: the shape of packed numbers, and how activations were to be rounded.
        layer = name.rpartition(".")[0]
        self._unread -= {f"{name}_shape", f"{layer}.input_scale", f"{layer}.input_zero_point"}
        return numbers, "int8", scale

    @contextmanager
    def _refusing_infinity(self, names: Sequence[str]) -> Iterator[None]:
        try:
            yield
        except NotFinite:
            raise self._not_finite(names) from None

    def _not_finite(self, names: Sequence[str]) -> UserError:
        files = ", ".join(sorted({str(self._file_of(name)) for name in names}))
        return UserError(
            f"{files}: {', '.join(names)} holds a value that is not a finite number in {self._dtype}: "
            "the file is damaged, fetch it again (or choose another --dtype, if it was converted)."
        )

    def _read(self, name: str, shape: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], str]:
        """A tensor of floats as numpy sees it, and its dtype."""
        tensor = self._tensor(name, shape, _STORAGE)
        dtype = _STORAGE[tensor.dtype]
        if dtype == "bfloat16":
            return tensor.view(torch.int16).numpy().view(np.uint16), dtype
        return tensor.numpy(), dtype

    def _tensor(self, name: str, shape: tuple[int, ...], dtypes: Mapping[torch.dtype, str]) -> torch.Tensor:
        file = self._where.get(name)
        if file is None:
            raise UserError(f"{self.folder} has no tensor {name} in its weights: fetch the checkpoint again.")
        self._unread.discard(name)
        handle = self._files[file]
        tensor: torch.Tensor = handle[name] if isinstance(handle, dict) else handle.get_tensor(name)
        if tuple(tensor.shape) != shape:
            raise UserError(
                f"{file}: {name} has the shape {list(tensor.shape)}, where config.json asks for {list(shape)}: they are of different models."
            )
        if tensor.dtype is torch.float64:
            tensor = tensor.float()
        if tensor.dtype not in dtypes:
            scale = f" without {name}_scale beside it" if tensor.dtype is torch.int8 else ""
            raise UserError(
                f"{file}: {name} has the dtype {str(tensor.dtype).rpartition('.')[2]}{scale}, only {', '.join(dtypes.values())} can be read."
            )
        return tensor.detach().contiguous()  # a pickle may hold parameters

    def _list_files(self) -> tuple[list[Path], bool]:
        """The files that hold the weights, and whether an index says so."""
        for form in FORMS:
            index = self.folder / index_of(form)
            has_index = index.is_file()
            if has_index:
                names = _names_in(index)
            else:
                names = without_index(form, (file.name for file in self.folder.iterdir() if file.is_file()))
            for name in names:
                if not (self.folder / name).is_file():
                    raise UserError(
                        f"{self.folder / name} is missing, though {index.name} lists it: fetch the checkpoint again."
                    )
            if names:
                return [self.folder / name for name in names], has_index
        raise UserError(
            f"{self.folder} has neither {' nor '.join(PATTERNS.values())}: it holds no weights that can be read."
        )

    def _open(self, file: Path) -> Sequence[str]:
        """Map a file into memory, and return the names of its tensors."""
        try:
            if file.suffix == ".safetensors":
                handle = safe_open(file, framework="pt")
                self._files[file] = handle
                return list(handle.keys())
            is_archive = is_zipfile(file)  # pickles of torch before 1.6 are none and cannot be mapped
            self._all_mapped &= is_archive
            tensors = torch.load(file, map_location="cpu", mmap=is_archive, weights_only=True)
        except (SafetensorError, RuntimeError, EOFError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        except Exception as error:  # torch's unpickler raises a good dozen of types
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        else:
            if not isinstance(tensors, Mapping) or not all(isinstance(name, str) for name in tensors):
                raise UserError(
                    f"{file} holds no tensors by name but a {type(tensors).__name__}: save the model's state_dict there."
                )
            # What else may stand beside weights is nothing that a network asks for.
            self._files[file] = {name: value for name, value in tensors.items() if isinstance(value, torch.Tensor)}
            return list(self._files[file])
        raise UserError(f"{file} is damaged or not complete ({reason}): fetch it again.")
