"""What all tests share."""

from __future__ import annotations

import gc
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator

import pytest

from batch_llm._llm.providers import table
from batch_llm.testing import SimulatedProvider

from . import buckets

OF_CLOUDS = re.compile(r"AWS_|AZURE_|GOOGLE_|GCE_|GCLOUD_|CLOUDSDK_|IDENTITY_|ANTHROPIC_|CLOUD_ML_")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the stages of CI that failed before: the end of its output may be all that is kept."""
    if failed := os.environ.get("FAILED_STAGES"):
        terminalreporter.write_line(f"stages of CI that failed before this one: {failed}")


@pytest.fixture(autouse=True, scope="module")
def _collect_only_what_is_new() -> None:
    """Have full collections look through what a module's tests make, and not through all that was there before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what another module's failures have left open
        gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def _own_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes to the registry of runs of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BATCH_LLM_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No test but those against real providers sees a real key."""
    if not request.node.get_closest_marker("integration"):
        for row in table().values():
            headers = [variable for variable, _ in row.header_variables]
            for name in (*row.key_variables, *row.token_variables, *row.address_variables, *headers):
                monkeypatch.delenv(name, raising=False)


@pytest.fixture
def no_clouds(monkeypatch, tmp_path):
    """No credentials for clouds of whoever runs the tests."""
    for name in list(os.environ):
        if OF_CLOUDS.match(name):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def use(monkeypatch):
    """Set variables of the environment."""

    def set_all(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.fixture
def open_descriptors():
    """Count this process's file descriptors."""
    folder = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    if not os.path.isdir(folder):
        pytest.skip(f"there is no {folder}")
    return lambda: len(os.listdir(folder))


@pytest.fixture
def provider(monkeypatch):
    """A simulated provider in the place of OpenAI, which counts how often each prompt came."""
    with SimulatedProvider(count_questions=True) as provider:
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
        yield provider


@pytest.fixture
def at(tmp_path, monkeypatch):
    """The folder of the test, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def s3():
    """The URL of a server that speaks S3."""
    program = buckets.program()
    if program is None:
        pytest.skip("needs moto's server: pip install 'moto[server]'")
    with buckets.moto_server(program) as url:
        yield url


_NUMBERS = itertools.count()


@pytest.fixture
def bucket(s3, monkeypatch):
    """The URL of an empty bucket, which the environment gives access to."""
    name = f"bucket-{next(_NUMBERS)}"
    buckets.ask(f"{s3}/{name}", "PUT")
    for variable in [variable for variable in os.environ if variable.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", buckets.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", buckets.SECRET)
    return f"s3://{name}"


@pytest.fixture
def front(s3, bucket, monkeypatch):
    """What stands before the server and can fail; the environment leads to it."""
    with buckets.Front(s3) as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL", front.url)
        yield front


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    """The URL of a server of Redis."""
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")
    path = tmp_path_factory.mktemp("redis") / "socket"
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--save", "", "--daemonize", "no"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=path.parent) as server:
        while not path.exists():
            assert server.poll() is None
            time.sleep(0.02)
        yield f"unix://{path}"
        server.terminate()
