"""Whether a model can be served."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vllm_mindspore.cli.checks import model
from vllm_mindspore.cli.doctor.probing import Probes

GIB = 1 << 30


def change(folder: Path, **settings: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Bytes of memory."""
    memory = {"total": 16 * GIB, "available": 8 * GIB}
    monkeypatch.setattr(model, "total_memory", lambda: memory["total"])
    monkeypatch.setattr(model, "available_memory", lambda: memory["available"])
    return memory


def test_nothing_is_said_where_no_model_is_named(machine: Any) -> None:
    assert machine.look(model) == []


def test_a_model_that_fits_is_fine(machine: Any, checkpoint: Path) -> None:
    text = machine.is_fine(model, model=str(checkpoint))
    assert "has a chat template" in text
    assert "LlamaForCausalLM is known, and runs in bfloat16" in text
    assert "It fits: weights 0.00 GiB" in text


def test_the_demo_model_is_fine(machine: Any, demo_model: Path) -> None:
    assert "weights 0.25 GiB" in machine.is_fine(model, model=str(demo_model))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "has architectures = ['MambaForCausalLM'], it must be one of"),
        (
            {"quantization_config": {"quant_method": "awq"}},
            "has quantization_config.quant_method = 'awq', it must be compressed-tensors",
        ),
        ({"torch_dtype": "float8_e4m3fn"}, "float8_e4m3fn is no dtype that the networks can have"),
    ],
)
def test_a_model_that_there_is_no_network_for_is_named(
    machine: Any, checkpoint: Path, settings: dict[str, Any], said: str
) -> None:
    change(checkpoint, **settings)
    (found,) = machine.problems(model, model=str(checkpoint))
    assert said in found.text
    assert found.remedy.command == "vllm-mindspore matrix --json"


def test_what_is_missing_is_named(machine: Any, checkpoint: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (checkpoint / name).unlink()
    texts = [found.text for found in machine.look(model, model=str(checkpoint))]
    assert f"{checkpoint} lacks weights: model.safetensors" in texts
    assert any("has no tokenizer" in text for text in texts)
    assert any("has no chat template: /v1/chat/completions will refuse" in text for text in texts)


def test_a_missing_shard_is_named(machine: Any, checkpoint: Path) -> None:
    shards = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (checkpoint / "model.safetensors").rename(checkpoint / shards["a"])
    (found,) = machine.problems(model, model=str(checkpoint))
    assert found.text == f"{checkpoint} lacks weights: {shards['b']}"


def test_weights_and_a_tokenizer_that_are_damaged_are_named(machine: Any, checkpoint: Path) -> None:
    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    for content in (whole[:-1], whole + b"more", whole[:4], b"", b"{" * 9):
        weights.write_bytes(content)
        (found,) = machine.problems(model, model=str(checkpoint))
        assert found.text == f"model.safetensors in {checkpoint} is damaged or not complete"
        assert found.remedy.command == f"ls -l {checkpoint}"
    weights.write_bytes(whole)
    (checkpoint / "tokenizer.json").write_text("{")
    (found,) = machine.problems(model, model=str(checkpoint))
    assert found.text == f"tokenizer.json in {checkpoint} is damaged or not complete"


def test_weights_under_other_names_are_found(machine: Any, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").rename(checkpoint / "weights.safetensors")
    assert "It fits" in machine.is_fine(model, model=str(checkpoint))


def test_a_git_lfs_pointer_is_not_taken_for_weights(machine: Any, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    (found,) = machine.problems(model, model=str(checkpoint))
    assert "holds a Git LFS pointer in place of model.safetensors" in found.text
    assert found.remedy.command == f"git -C {checkpoint} lfs pull"


def test_a_context_that_does_not_fit_is_named_with_the_longest_that_does(
    machine: Any, checkpoint: Path, memory: dict[str, int]
) -> None:
    change(checkpoint, num_hidden_layers=64, hidden_size=4096, num_attention_heads=32, max_position_embeddings=1 << 20)
    (found,) = machine.problems(model, model=str(checkpoint), max_model_len=1 << 20)
    assert "does not fit with this context" in found.text
    longest = int(found.remedy.command.split()[-1])
    assert f"--max-model-len {longest}" in found.remedy.command
    machine.is_fine(model, model=str(checkpoint), max_model_len=longest)
    assert machine.problems(model, model=str(checkpoint), max_model_len=longest + 64)


@pytest.mark.parametrize(("extra", "sequences"), [("vllm073", 256), ("vllm083", 1024), ("vllm091", 256)])
def test_a_step_has_as_many_rows_of_logits_as_vllm_takes_sequences(
    machine: Any, checkpoint: Path, extra: str, sequences: int
) -> None:
    change(checkpoint, vocab_size=1 << 20)
    text = machine.is_fine(model, extra, model=str(checkpoint))
    step = float(text.partition("a step ")[2].split()[0])
    assert sequences * (1 << 20) * 4 / GIB <= step < sequences * (1 << 20) * 4 / GIB + 0.2


@pytest.mark.parametrize(("extra", "block"), [("vllm073", 16), ("vllm091", 64)])
def test_a_sequence_fills_whole_blocks(machine: Any, checkpoint: Path, extra: str, block: int) -> None:
    change(checkpoint, num_hidden_layers=4096, hidden_size=4096, num_attention_heads=32, num_key_value_heads=32)
    needs = [machine.look(model, extra, model=str(checkpoint), max_model_len=n)[-1].text for n in (1, block, block + 1)]
    one, full, more = (float(text.partition("tokens of KV cache ")[2].split()[0]) for text in needs)
    assert one == full == round(2 * 4096 * 4096 * 2 * block / GIB, 2)
    assert more == 2 * full


def test_the_context_that_fits_follows_the_space_that_vllm_will_take(
    machine: Any, checkpoint: Path, memory: dict[str, int]
) -> None:
    longest = 1 << 22
    change(checkpoint, num_hidden_layers=64, hidden_size=4096, num_attention_heads=32, max_position_embeddings=longest)

    def fitting() -> int:
        (found,) = machine.problems(model, model=str(checkpoint), max_model_len=longest)
        return int(found.remedy.command.split()[-1])

    with_all_that_is_free = fitting()
    machine.environ = {"VLLM_CPU_KVCACHE_SPACE": "4"}
    assert fitting() < with_all_that_is_free
    machine.environ = {"VLLM_CPU_KVCACHE_SPACE": "100"}  # which is not there
    assert fitting() == with_all_that_is_free
    machine.environ = {}
    memory["total"] = 8 * GIB  # of which vLLM takes nine tenths
    assert fitting() < with_all_that_is_free


def test_a_step_of_v0_is_as_long_as_the_context(machine: Any, checkpoint: Path) -> None:
    """V1 cuts prompts into chunks where V0 does not."""
    change(checkpoint, max_position_embeddings=1 << 16)

    def step(extra: str) -> float:
        texts = (found.text for found in machine.look(model, extra, model=str(checkpoint), max_model_len=1 << 16))
        (text,) = [text for text in texts if "a step" in text]
        return float(text.partition("a step ")[2].split()[0])

    assert step("vllm073") > 4 * step("vllm091")


def test_weights_that_do_not_fit_are_named(machine: Any, checkpoint: Path, memory: dict[str, int]) -> None:
    memory["available"] = 1 << 20
    (found,) = machine.problems(model, model=str(checkpoint))
    assert "does not fit: weights" in found.text


def test_the_dtype_decides_how_much_the_weights_take(machine: Any, checkpoint: Path) -> None:
    header = json.dumps({"weight": {"dtype": "U8", "shape": [2 * GIB], "data_offsets": [0, 2 * GIB]}}).encode()
    with (checkpoint / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * GIB)
    assert "weights 2.00 GiB" in machine.is_fine(model, model=str(checkpoint))
    assert "weights 4.00 GiB" in machine.is_fine(model, model=str(checkpoint), dtype="float32")
    change(checkpoint, torch_dtype="float32")
    assert "runs in 16 bits, as vLLM chooses\nIt fits: weights 1.00 GiB" in machine.is_fine(
        model, model=str(checkpoint)
    )


def test_more_positions_than_the_model_has_are_refused(machine: Any, checkpoint: Path) -> None:
    (found,) = machine.problems(model, model=str(checkpoint), max_model_len=4096)
    assert "--max-model-len 4096 is more than the 2048 positions" in found.text


@pytest.mark.parametrize(
    ("scaling", "positions"),
    [
        ({"rope_type": "linear", "factor": 4.0}, 8192),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096),
        ({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 256}, 2048),
    ],
    ids=["linear", "yarn", "llama3, whose positions are the scaled ones"],
)  # fmt: skip
def test_positions_that_rope_scaling_adds_are_counted(
    machine: Any, checkpoint: Path, scaling: dict[str, Any], positions: int
) -> None:
    change(checkpoint, rope_scaling=scaling)
    machine.is_fine(model, model=str(checkpoint), max_model_len=positions)
    assert machine.problems(model, model=str(checkpoint), max_model_len=positions + 1)
    machine.environ = {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}
    machine.is_fine(model, model=str(checkpoint), max_model_len=positions + 1)


def test_positions_that_vllm_does_not_hear_of_are_not_counted(machine: Any, checkpoint: Path) -> None:
    change(checkpoint, rope_parameters={"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0})
    machine.is_fine(model, model=str(checkpoint), max_model_len=2048)
    assert machine.problems(model, model=str(checkpoint), max_model_len=2049)


def test_settings_of_yarn_that_vllm_cannot_read_are_named(machine: Any, checkpoint: Path) -> None:
    change(checkpoint, rope_scaling={"rope_type": "yarn", "factor": 4.0})
    (found,) = machine.problems(model, model=str(checkpoint))
    assert "yarn and lacks original_max_position_embeddings" in found.text
    assert found.remedy.command == f"vi {checkpoint}/config.json"


def test_a_path_that_is_not_there_is_named(machine: Any) -> None:
    (found,) = machine.problems(model, model="/no/such/model")
    assert found.text.startswith("/no/such/model is no folder")


def test_a_config_that_is_no_json_is_named(machine: Any, checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    (found,) = machine.problems(model, model=str(checkpoint))
    assert "config.json is not JSON" in found.text
    assert found.remedy.command == f"vi {checkpoint}/config.json"


def test_an_index_that_is_no_json_is_named(machine: Any, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors.index.json").write_text("{")
    (found,) = machine.problems(model, model=str(checkpoint))
    assert "model.safetensors.index.json is not JSON" in found.text
    assert found.remedy.command == f"vi {checkpoint}/model.safetensors.index.json"


def test_an_illegal_value_is_to_be_mended_where_it_stands(machine: Any, checkpoint: Path) -> None:
    change(checkpoint, num_key_value_heads=3)
    (found,) = machine.problems(model, model=str(checkpoint))
    assert "has num_key_value_heads = 3, it must be a divisor of num_attention_heads" in found.text
    assert found.remedy.command == f"vi {checkpoint}/config.json"


def test_what_a_folder_lacks_is_not_asked_of_the_hub(machine: Any, checkpoint: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (checkpoint / name).unlink()
    found = machine.problems(model, model=str(checkpoint))
    assert {one.remedy.command for one in found} == {f"ls -l {checkpoint}"}


def test_a_folder_in_the_home_folder_is_found(machine: Any, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    assert f"{checkpoint} has a chat template" in machine.is_fine(model, model=f"~/{checkpoint.name}")
    (found,) = machine.problems(model, model="~/not_there")
    assert found.text.startswith(f"{checkpoint.parent}/not_there is no folder")


@pytest.fixture
def hub(checkpoint: Path) -> Iterator[str]:
    """A hub with the model me/mine, of which the weights can be listed and not fetched."""
    small = ("config.json", "tokenizer_config.json")
    listing = {
        "id": "me/mine",
        "sha": "0" * 40,
        "siblings": [{"rfilename": file.name, "size": file.stat().st_size} for file in checkpoint.iterdir()],
    }

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            if self.path.startswith("/api/models/me/mine"):
                body = json.dumps(listing).encode()
            elif self.path.startswith("/me/mine/resolve/") and name in small:
                body = (checkpoint / name).read_bytes()
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{name}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_model_on_the_hub_is_looked_at_without_fetching_it(machine: Any, hub: str) -> None:
    machine.environ = {"HF_ENDPOINT": hub, "HF_HOME": str(machine.root / "cache"), "PATH": "/usr/bin"}
    with Probes(60, machine.environ) as machine.probes:
        assert "It fits" in machine.is_fine(model, model="me/mine")
        (found,) = machine.problems(model, model="me/yours")
    assert "the hub does not give it" in found.text
    assert not list((machine.root / "cache").rglob("*.safetensors"))


def test_a_model_that_is_not_in_the_cache_of_an_offline_machine_is_named(machine: Any) -> None:
    machine.environ = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(machine.root), "PATH": "/usr/bin"}
    with Probes(60, machine.environ) as machine.probes:
        (found,) = machine.problems(model, model="me/mine")
    assert found.text == "me/mine is not in the cache, and HF_HUB_OFFLINE keeps from fetching it"
    assert found.remedy.command == "HF_HUB_OFFLINE=0 huggingface-cli download me/mine"


def test_a_model_in_the_cache_is_found_offline(machine: Any, checkpoint: Path) -> None:
    repository = machine.root / "hub" / "models--me--mine"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    checkpoint.rename(repository / "snapshots" / ("0" * 40))
    machine.environ = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(machine.root), "PATH": "/usr/bin"}
    with Probes(60, machine.environ) as machine.probes:
        assert "It fits" in machine.is_fine(model, model="me/mine")
