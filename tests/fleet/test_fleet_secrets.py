"""No code and no whole number in anything that the database writes to its disk."""

import re

from fleet_support import KEYS, running, until, worker_of
from store_fixtures import own_server
from store_servers import PostgresServer
from support import ScriptedTransport
from test_worker import client_of, refusal, settled

from nxotp_async import OtpMessage
from nxotp_async.fleet import Outbox


async def test_no_file_of_the_database_holds_a_code_or_a_whole_number() -> None:
    with own_server(PostgresServer) as server:
        outbox = Outbox(server.url, keys=KEYS)
        await outbox.migrate()
        transport = ScriptedTransport(refusal(9015), refusal(9015))
        async with outbox, running(worker_of(outbox, client_of(transport))):
            messages = [
                OtpMessage(f"+99950000{n:03}", f"Your code is 739200{n:02}", cus_message_id=f"m{n}") for n in range(50)
            ]
            await outbox.enqueue_many(messages)
            await outbox.enqueue(OtpMessage("+99950000777", "Your code is 73920077", business_phone="+999 555 0177"))
            await until(lambda: settled(outbox))
        await outbox.aclose()
        server.kill()  # what was not written to the tables' files is in the WAL
        files = [path for path in server.directory.rglob("*") if path.is_file()]
        assert any("pg_wal" in path.parts for path in files)
        known = re.compile(rb"99950000\d{3}|Your code|739200\d\d|9995550177")
        in_clear = [path for path in files if re.search(known, path.read_bytes())]
        assert in_clear == []
