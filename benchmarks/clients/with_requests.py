"""requests: a session that as many threads share."""

from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import requests
from requests.adapters import HTTPAdapter

from clients import Job
from clients.protocol import FIXED_HEADERS, PATH, TIMEOUT, message_id, signed


def run(job: Job) -> None:
    with requests.Session() as session, ThreadPoolExecutor(job.concurrency) as threads:
        session.trust_env = False
        session.headers.update(FIXED_HEADERS)
        session.mount("http://", HTTPAdapter(pool_maxsize=job.concurrency))

        def send(message: tuple[str, str]) -> tuple[str, float]:
            began = perf_counter()
            body, headers = signed(*message)
            response = session.post(job.url + PATH, data=body, headers=headers, timeout=TIMEOUT)
            return message_id(response.status_code, response.content), perf_counter() - began

        with job.clock():
            for message, seconds in threads.map(send, job.messages()):
                job.done(message, seconds)
