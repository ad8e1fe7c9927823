"""Verifies requests with the official library of Standard Webhooks.

Standard input: {"secrets": ["whsec_…", …], "requests": [{"fields": [[name, value], …], "body": "…"}, …]}. Every secret
must verify every request, and must not verify it with another body.
"""

import json
import sys

from standardwebhooks import Webhook, WebhookVerificationError

place = json.load(sys.stdin)
assert place["requests"], "no requests"
for request in place["requests"]:
    fields = dict(request["fields"])
    for secret in place["secrets"]:
        payload = Webhook(secret).verify(request["body"].encode(), fields)
        assert payload["type"].startswith("annotation."), payload
        assert payload["timestamp"] and payload["data"]["id"], payload
        try:
            Webhook(secret).verify(request["body"].encode() + b" ", fields)
        except WebhookVerificationError:
            continue
        raise AssertionError("another body was accepted")
print(len(place["requests"]), "requests verified")
