"""Autobahn's fuzzing client: prints its report as JSON, one object per case, and its progress on standard error.

Usage: fuzz.py FOLDER URL PATTERN…, as in fuzz.py target/autobahn ws://127.0.0.1:9001 '1.*' 7.9.1

In the suite, a `str` is a string of bytes. It is encoded before sending and decoded after receiving.
"""

import codecs
import json
import sys
import warnings

warnings.simplefilter("ignore")
SUITE, URL, *CASES = sys.argv[1:]
sys.path.insert(0, SUITE)

import txaio

txaio.use_twisted()

from autobahn.websocket import protocol
from autobahntestsuite import fuzzing
from twisted.internet import reactor


def to_bytes(data):
    return data.encode("latin-1") if isinstance(data, str) else data


class Masker:
    """Replaces the client's own masker, which processes single bytes and takes a minute for the large messages."""

    def __init__(self, mask, length=None):
        self.mask = mask
        self.at = 0

    def pointer(self):
        return self.at

    def process(self, data):
        start = self.at % 4
        key = (self.mask * (len(data) // 4 + 2))[start : start + len(data)]
        self.at += len(data)
        masked = int.from_bytes(data, "big") ^ int.from_bytes(key, "big")
        return masked.to_bytes(len(data), "big")


class Utf8Validator:
    """Replaces the client's own validator for the same reason. The returned positions are not used here."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.decoder = codecs.getincrementaldecoder("utf-8")()

    def validate(self, data):
        try:
            self.decoder.decode(data)
        except UnicodeDecodeError:
            return False, False, 0, 0
        return True, not self.decoder.getstate()[0], 0, 0


class Protocol(fuzzing.FuzzingClientProtocol):
    def sendFrame(self, opcode, payload=b"", fin=True, rsv=0, mask=None, payload_len=None, **how):
        payload = to_bytes(payload)
        if payload_len is not None:
            payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
        super().sendFrame(opcode, payload, fin, rsv, to_bytes(mask), None, **how)

    def sendMessage(self, payload, *how, **more):
        super().sendMessage(to_bytes(payload), *how, **more)

    def sendMessageFrameData(self, payload, *how):
        return super().sendMessageFrameData(to_bytes(payload), *how)

    def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
        super().sendCloseFrame(code, to_bytes(reasonUtf8), isReply)

    def onMessage(self, payload, binary):
        # The compression cases read their payload from a file, as bytes.
        if not hasattr(self.runCase, "TESTDATA"):
            payload = payload.decode("latin-1")
        super().onMessage(payload, binary)

    def onPong(self, payload):
        super().onPong(payload.decode("latin-1"))

    def connectionLost(self, reason):
        # Skips the suite's own method, which mostly generates HTML.
        fuzzing.WebSocketClientProtocol.connectionLost(self, reason)
        self.runCase.onConnectionLost(self.failedByMe)
        self.factory.logCase(
            {
                "agent": self.caseAgent,
                "id": self.factory.CaseSet.caseClasstoId(self.Case),
                "behavior": self.runCase.behavior,
                "behaviorClose": self.runCase.behaviorClose,
                "remoteCloseCode": self.remoteCloseCode,
                "duration": int(1000 * (fuzzing.time.time() - self.caseStart)),
                "compressed": self.trafficStats.incomingOctetsWebSocketLevel
                < self.trafficStats.incomingOctetsAppLevel,
                "result": [self.runCase.result, self.runCase.resultClose],
            }
        )

    def logRxOctets(self, data):
        pass

    def logTxOctets(self, data, sync):
        pass

    def logRxFrame(self, header, payload):
        pass

    def logTxFrame(self, header, payload, *how):
        self.txFrameStats[header.opcode] = self.txFrameStats.get(header.opcode, 0) + 1


class Factory(fuzzing.FuzzingClientFactory):
    def __init__(self):
        super().__init__({"servers": [{"agent": "echo", "url": URL}], "cases": CASES})

    def buildProtocol(self, addr):
        proto = Protocol()
        proto.factory = self
        proto.caseAgent = self.agent
        proto.case = self.currentCaseIndex
        proto.Case = fuzzing.Cases[self.currentCaseIndex - 1]
        proto.runCase = proto.Case(proto)
        if hasattr(proto.runCase, "TESTDATA"):
            proto.runCase.COUNT = min(proto.runCase.COUNT, MOST_COMPRESSED // proto.runCase.LEN)
        return proto

    def createReports(self):
        json.dump(self.agents.get("echo", {}), REPORT)


def main():
    protocol.createXorMasker = Masker
    protocol.Utf8Validator = Utf8Validator
    # The factory connects by itself, and stops the reactor after the last case.
    Factory()
    reactor.run()


# A compression case (sections 12 and 13) sends a thousand messages of up to 128 KiB, eleven gigabytes in total,
# for which zlib in Python takes many minutes. Here, a case ends after this many bytes: 32 of the largest
# messages, and all thousand of those up to 4 KiB.
MOST_COMPRESSED = 4 << 20

# The suite prints its progress to standard output, which is reserved for the report here.
REPORT, sys.stdout = sys.stdout, sys.stderr
main()
