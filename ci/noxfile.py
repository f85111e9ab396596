"""The matrix: a session for each release of vLLM in version_matrix.toml, by the name of its extra. `make test` runs it, see CONTRIBUTING.md.

An environment is made once, in `.envs`, and made again only if what it is made of has changed; the package in it is reinstalled whenever
a source has. The release that is installed where nox itself runs (`.venv`) needs no other environment, and its session also runs the
tests that are not of conformance. `nox -f ci/noxfile.py -s vllm083 -- V0 -k greedy` runs one engine and passes the rest on to pytest.

A pair that the matrix says continuous integration runs in part (`vllm091-mindspore-2.7.0`) has a session of its own, which generates text.
"""

from __future__ import annotations

import atexit
import hashlib
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nox

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ROOT / ".envs"
DIST = ENVIRONMENTS / "dist"
RELEASES = tomllib.loads((ROOT / "version_matrix.toml").read_text(encoding="utf-8"))["release"]
USE_V1 = {"V0": "0", "V1": "1"}

nox.options.envdir = str(ENVIRONMENTS)
nox.options.default_venv_backend = "uv"
nox.options.reuse_venv = "yes"

results: list[tuple[str, str, str, float]] = []


def print_results() -> None:
    """One line for each run of pytest: release, what ran, outcome, minutes."""
    if results:
        print(f"\n{'row':<26}{'engine':<16}{'minutes':>8}  outcome")
    for row, what, outcome, seconds in results:
        print(f"{row:<26}{what:<16}{seconds / 60:>8.1f}  {outcome}")


atexit.register(print_results)


def digest(*paths: Path) -> str:
    """Of the contents of files and of all files in folders."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and file.suffix != ".pyc":
                total.update(f"{file.relative_to(ROOT)}\n".encode())
                total.update(file.read_bytes())
    return total.hexdigest()


def requirements() -> str:
    return digest(ROOT / "pyproject.toml", ROOT / "version_matrix.toml")


def sources() -> str:
    folders = (ROOT / name for name in ("vllm_mindspore", "compat", "kernels"))
    return digest(ROOT / "pyproject.toml", ROOT / "version_matrix.toml", ROOT / "README.md", ROOT / "LICENSE", *folders)


def wheel(session: nox.Session) -> Path:
    """The package, built once for all sessions and as long as no source changes."""
    stamp = DIST / "stamp"
    if not (stamp.is_file() and stamp.read_text() == sources() and list(DIST.glob("*.whl"))):
        for old in DIST.glob("*.whl"):
            old.unlink()
        session.run("uv", "build", "--quiet", "--wheel", "--out-dir", str(DIST), str(ROOT), external=True)
        stamp.write_text(sources())
    return next(DIST.glob("*.whl"))


def install(session: nox.Session, extra: str, *more: str) -> None:
    """Bring the session's environment up to date: the row's extra and more requirements."""
    built = wheel(session)
    stamp = Path(session.virtualenv.location) / ".installed"
    installed = stamp.read_text().split() if stamp.is_file() else ["", ""]
    stamp.unlink(missing_ok=True)  # what is half done is done again
    if installed[0] != requirements():
        session.install("--quiet", "--reinstall-package", "vllm-mindspore", f"{built}[{extra},test]", *more)
    elif installed[1] != sources():
        session.install("--quiet", "--no-deps", "--reinstall-package", "vllm-mindspore", str(built))
    stamp.write_text(f"{requirements()} {sources()}")


def run(session: nox.Session, row: str, what: str, *arguments: str, **environment: str) -> bool:
    """Run the pytest of the session's environment, remember how it ended, and tell whether it passed."""
    environments = session.virtualenv.bin_paths or [str(Path(sys.executable).parent)]
    report = ENVIRONMENTS / "reports" / f"{row}-{what.replace(' ', '-')}.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    started = time.monotonic()
    try:
        session.run(f"{environments[0]}/pytest", f"--junitxml={report}", *arguments, env=environment, external=True)
        passed = True
    except nox.command.CommandFailed:
        passed = False
    results.append((row, what, ("" if passed else "FAILED: ") + outcome(report), time.monotonic() - started))
    return passed


def run_each(session: nox.Session, name: str, what: Iterable[tuple[str, list[str], dict[str, str]]]) -> None:
    """Run pytest once for each name, arguments and environment, and fail at the end if any of them failed."""
    failed = [one for one, arguments, environment in what if not run(session, name, one, *arguments, **environment)]
    if failed:
        session.error(f"{name}: {', '.join(failed)} failed")


def outcome(report: Path) -> str:
    if not report.is_file():
        return "pytest did not finish"
    suite = next(ET.parse(report).iter("testsuite"))
    total, failed, errors, skipped = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
    expected = sum("xfail" in (case.get("type") or "") for case in suite.iter("skipped"))
    counts = {
        "passed": total - failed - errors - skipped,
        "failed": failed,
        "errors": errors,
        "skipped": skipped - expected,
        "failed as listed": expected,
    }
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count or name == "passed")


def is_here(release: dict) -> bool:
    """Whether this release is the one of the environment that nox runs in."""
    try:
        return version("vllm").partition("+")[0] == release["vllm"]
    except PackageNotFoundError:
        return False


def conformance() -> list[str]:
    """The files of tests/conformance, the one first that takes longest: last, it would run alone."""
    files = sorted(
        (ROOT / "tests/conformance").glob("test_*.py"), key=lambda file: (file.stem != "test_processes", file)
    )
    return [str(file.relative_to(ROOT)) for file in files]


def runs(
    release: dict, chosen: list[str], more: list[str], here: bool
) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """What pytest is to run: a name, arguments, environment.

    Most of the time passes in imports and in starting engines, which use one core: two files are run at a time. A choice of tests is run one by
    one, to be looked at.
    """
    two = [] if more else ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    if here and not chosen and not more:
        yield "unit and e2e", ["tests/e2e", "tests/unit", *two], {}  # the longest files first
    for row in release["engine"]:
        if not chosen or row["engine"] in chosen:
            # What only this adapter has to be asked comes first, as it takes long.
            particular = [str(folder.relative_to(ROOT)) for folder in (ROOT / "tests/e2e").glob(row["adapter"])]
            usual = [*particular, *conformance()]
            places = [] if any(argument.startswith("tests/") for argument in more) else usual
            # An engine on all cores would wait for threads that the other's hold up.
            threads = {"OMP_NUM_THREADS": "1"} if two else {}
            yield row["engine"], [*places, *two, *more], {"VLLM_USE_V1": USE_V1[row["engine"]], **threads}


def add_session(release: dict) -> None:
    extra, here = release["extra"], is_here(release)

    def test(session: nox.Session) -> None:
        session.chdir(ROOT)
        if not here:
            install(session, extra)
        chosen = [argument for argument in session.posargs if argument in USE_V1]
        more = [argument for argument in session.posargs if argument not in USE_V1]
        run_each(session, extra, runs(release, chosen, more, here))

    test.__doc__ = f"vLLM {release['vllm']}: {', '.join(row['engine'] for row in release['engine'])}"
    nox.session(test, name=extra, venv_backend="none" if here else "uv", reuse_venv=True)


def add_session_in_part(release: dict, mindspore: str) -> None:
    name = f"{release['extra']}-mindspore-{mindspore}"

    def test(session: nox.Session) -> None:
        session.chdir(ROOT)
        install(session, release["extra"], f"mindspore=={mindspore}")
        arguments = ["tests/conformance/test_generation.py", *session.posargs]
        engines = [row["engine"] for row in release["engine"]]
        run_each(session, name, ((engine, arguments, {"VLLM_USE_V1": USE_V1[engine]}) for engine in engines))

    test.__doc__ = f"vLLM {release['vllm']} with MindSpore {mindspore}: generation"
    nox.session(test, name=name, reuse_venv=True)


for _release in RELEASES:
    add_session(_release)
    for _pair in _release["pair"]:
        if _pair["verified"] == "cpu" and "shown" in _pair:
            for _mindspore in _pair["mindspore"]:
                add_session_in_part(_release, _mindspore)
