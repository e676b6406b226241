"""One quota over four workers on two nodes of Ray: requests refused, and the time against the ideal one, by board.

Needs an environment with ray[data], and redis-server for that board. The provider enforces 200 requests per second,
with a burst of two seconds, and reports limits in headers (openai) or does not (gemini). Rows are in 32 blocks of equal
size, or all in one. Ideal is the rate of the quota, from the first request to the last row. "Away" is a board that is
killed after a third of the rows, and is back ten seconds later.

    python benchmarks/ray_quota.py [--rows 4000] [--only actor,file,tcp,redis]
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster
from ray_data import reviews

import batch_llm.ray
from batch_llm import LimitServer
from batch_llm.testing import SimulatedProvider

RATE, BURST = 200, 2.0
AWAY_SECONDS = 10.0
Board = tuple[Any, Callable[[], None]]
"""What to give as ``shared_limits=``, and what kills it for ten seconds."""


@contextlib.contextmanager
def actor() -> Iterator[Board]:
    # Ray starts it again by itself, within a second.
    yield None, lambda: ray.kill(batch_llm.ray._actor_of_job(), no_restart=False)


@contextlib.contextmanager
def file() -> Iterator[Board]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder, "shared", "limits.json")
        place.parent.mkdir()

        def away() -> None:
            place.parent.rename(place.parent.with_name("moved"))
            time.sleep(AWAY_SECONDS)
            place.parent.with_name("moved").rename(place.parent)

        yield place, away


@contextlib.contextmanager
def tcp() -> Iterator[Board]:
    servers = [LimitServer()]
    port = int(servers[0].url.rpartition(":")[2])
    token = servers[0].url.partition("//")[2].partition("@")[0]

    def away() -> None:
        servers[-1].close()
        time.sleep(AWAY_SECONDS)
        servers.append(LimitServer(port=port, token=token))

    yield servers[0].url, away
    servers[-1].close()


@contextlib.contextmanager
def redis() -> Iterator[Board]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--save", "", "--appendonly", "no", "--daemonize", "no"]
    servers = [subprocess.Popen(command, stdout=subprocess.DEVNULL)]

    def away() -> None:
        servers[-1].kill()
        servers[-1].wait()
        time.sleep(AWAY_SECONDS)
        servers.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))

    time.sleep(1)
    yield f"redis://127.0.0.1:{port}", away
    servers[-1].kill()
    servers[-1].wait()


BOARDS = {"actor": actor, "file": file, "tcp": tcp, "redis": redis}


def measured(board: Board, rows: int, has_headers: bool, blocks: int, is_away: bool) -> tuple[int, float]:
    """Requests refused, and the time against the ideal one."""
    place, away = board
    with SimulatedProvider(requests_per_minute=60 * RATE, burst_seconds=BURST) as provider:
        model, url = ("openai:gpt-5-mini", provider.base_url)
        if not has_headers:
            model, url = "gemini:gemini-2.5-flash", provider.gemini_url
        options = {} if place is None else {"shared_limits": place}
        made = batch_llm.ray.map_prompts(
            reviews(rows, rows // blocks),
            "Rate: {text}",
            model,
            base_url=url,
            workers=4,
            blocks_at_once=2,
            max_requests_per_minute=60 * RATE,
            **options,
        )
        first: list[float] = []

        def watch() -> None:
            while not provider.stats.requests:
                time.sleep(0.005)
            first.append(time.perf_counter())
            if is_away:
                while provider.stats.requests < rows / 3:
                    time.sleep(0.005)
                away()

        watcher = threading.Thread(target=watch)
        watcher.start()
        got = made.take_all()
        seconds = time.perf_counter() - first[0]
        watcher.join()
        assert len(got) == rows, f"{len(got)} rows of {rows}"
        assert all(row["output_error"] is None for row in got)
        return provider.stats.statuses.get(429, 0), seconds / (rows / RATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--only", default=",".join(BOARDS))
    arguments = parser.parse_args()
    node = {"num_cpus": 4, "object_store_memory": 200 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    print("| board | rate headers | rows in | board away | refused | time against the ideal |")
    print("| --- | --- | --- | --- | ---: | ---: |")
    for name in arguments.only.split(","):
        for has_headers, blocks, is_away in (
            (True, 32, False),
            (True, 1, False),
            (False, 32, False),
            (False, 1, False),
            (False, 32, True),
        ):
            with BOARDS[name]() as board:
                refused, ratio = measured(board, arguments.rows, has_headers, blocks, is_away)
            print(
                f"| {name} | {'yes' if has_headers else 'no'} | {blocks} block{'s' if blocks > 1 else ''} | "
                f"{'yes' if is_away else 'no'} | {refused} ({refused / arguments.rows:.2%}) | {ratio:.2f} |",
                flush=True,
            )
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main()
