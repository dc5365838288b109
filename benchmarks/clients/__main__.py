"""Let one contender do its job in this process, and print what it took as JSON. compare_clients.py runs this."""

import argparse
import asyncio
import importlib
import inspect
import os
import sys

import orjson
import uvloop
from answering import CLIENT_CORE, pin

from clients import CONTENDERS, Job


def do(job: Job, contender: str, loop: str) -> None:
    module, _, name = CONTENDERS[contender].run.partition(":")
    run = getattr(importlib.import_module(f"clients.{module}"), name)
    if not inspect.iscoroutinefunction(run):
        run(job)
        return
    new_loop = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run(job))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m clients", description=__doc__)
    parser.add_argument("contender", choices=CONTENDERS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--sends", type=int, required=True)
    parser.add_argument("--concurrency", type=int, required=True)
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], required=True)
    arguments = parser.parse_args()
    pin(CLIENT_CORE)
    job = Job(arguments.url, arguments.sends, arguments.concurrency)
    do(job, arguments.contender, arguments.loop)
    if job.accepted != job.sends:
        sys.exit(f"{arguments.contender}: only {job.accepted} of {job.sends} messages were accepted")
    latencies = sorted(job.latencies)
    sample = {
        "sends": job.sends,
        "rate": job.sends / job.wall,
        "cpu": job.cpu / job.sends * 1e6,
        "p50": latencies[len(latencies) // 2] * 1e3 if latencies else None,
        "p99": latencies[len(latencies) * 99 // 100] * 1e3 if latencies else None,
    }
    print(orjson.dumps(sample).decode(), flush=True)
    os._exit(0)  # pyreqwest's thread at times crashes an interpreter that takes its leave in order


if __name__ == "__main__":
    main()
