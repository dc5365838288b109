"""A client written from the vendor's pages with the standard library alone: it shares no code with the package.

    python client.py URL SPOIL

SPOIL says in which part one byte is changed after signing: nothing, body, sign, ts or secret. It writes the answer.
"""

import hashlib
import json
import sys
import time
import urllib.request

url, spoil = sys.argv[1:]
secret = "sandbox-access-secret"
headers = {"accessKey": "sandbox-access-key", "action": "mt", "bizType": "2", "ts": str(time.time_ns() // 1_000_000)}
body = json.dumps(
    {
        "appkey": "sandbox-appkey",
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        "to": "9995550100",
        "language_code": "zh_CN",
        "content": "您的验证码是 482913",
        "cus_message_id": "by-hand-1",
    },
    ensure_ascii=False,
)
if spoil == "secret":
    secret = "sandbox-access-secreT"
text = "&".join(f"{name}={headers[name]}" for name in sorted(headers)) + "&body=" + body + "&accessSecret=" + secret
sign = hashlib.md5(text.encode("utf-8")).hexdigest()
if spoil == "body":
    body = body.replace("482913", "482914")
if spoil == "sign":
    sign = sign[:-1] + ("0" if sign[-1] != "0" else "1")
if spoil == "ts":
    headers["ts"] = str(int(headers["ts"]) + 1)
request = urllib.request.Request(
    url + "/api/wa/otp",
    data=body.encode("utf-8"),
    headers={**headers, "sign": sign, "Content-Type": "application/json"},
)
with urllib.request.urlopen(request, timeout=20) as response:
    sys.stdout.write(response.read().decode("utf-8"))
