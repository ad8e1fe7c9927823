"""Reads metrics from standard input with Prometheus' own parser, and prints the number of samples.

Usage: metrics.py < TEXT
"""

import sys

from prometheus_client.parser import text_string_to_metric_families

KINDS = {"counter", "gauge", "histogram"}

count = 0
for family in text_string_to_metric_families(sys.stdin.read()):
    # The parser reports a missing or invalid TYPE as "unknown".
    assert family.type in KINDS, (family.name, family.type)
    assert family.documentation, family.name
    count += len(family.samples)
print(count)
