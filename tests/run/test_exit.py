"""The end of the interpreter, with work on: nothing hangs, nothing crashes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from ..helpers import script


@pytest.mark.parametrize("how", ["sys.exit(3)", "raise SystemExit(3)", "os.kill(os.getpid(), 15)"])
def test_leaving_the_interpreter_in_mid_run_hangs_nothing(how):
    done = script(
        f"""
        async def leave():
            await asyncio.sleep(0.05)
            {how}

        async def main():
            leaving = asyncio.create_task(leave())
            await run(Echo(100), ["x"] * 20)

        asyncio.run(main())
        """
    )
    assert done.returncode in (3, -15)


def test_a_daemon_thread_with_a_run_does_not_hold_up_the_exit():
    done = script(
        """
        import threading
        threading.Thread(target=lambda: asyncio.run(run(Echo(100), ["x"] * 20)), daemon=True).start()
        time.sleep(0.2)
        print("leaving", flush=True)
        """
    )
    assert (done.returncode, done.stdout.strip()) == (0, "leaving"), done.stderr


CALLS = """
from batch_llm.testing import Fault, SimulatedProvider
provider = SimulatedProvider({faults}).__enter__()
strategy = llm("openai:gpt-5", api_key="x", base_url=provider.base_url)

async def main():
    calls = [asyncio.create_task(strategy.execute(str(number), 1, 1000.0)) for number in range(5)]
    print(len((await asyncio.wait(calls, timeout={timeout}))[{which}]), flush=True)

sys.setswitchinterval(60)  # whoever wants the interpreter waits
loop = asyncio.new_event_loop()
loop.run_until_complete(main())
"""


def test_leaving_right_after_direct_calls_crashes_nothing():
    # The threads that bring the answers may still be on their way out of the interpreter.
    program = CALLS.format(faults="", timeout=None, which=0)
    with ThreadPoolExecutor(4) as pool:
        for done in pool.map(script, [program] * 16):
            assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr


def test_leaving_with_direct_calls_on_waits_for_none():
    done = script(CALLS.format(faults='faults=[Fault("hang", every=1)]', timeout=0.2, which=1), timeout=60.0)
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr
