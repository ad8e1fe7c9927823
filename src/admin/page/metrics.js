// Requests the server's metrics, and parses the Prometheus text format.
import { POLL_TIMEOUT_MS, metricsHeaders, parseJson, setMetricsKey, unreachable } from '/common.js';

let latest = null;

// Throws an Error whose message is for the user.
export async function fetchMetrics() {
  let response;
  let text;
  try {
    response = await fetch('/metrics', { headers: metricsHeaders(), cache: 'no-store', signal: AbortSignal.timeout(POLL_TIMEOUT_MS) });
    text = await response.text();
  } catch {
    throw new Error(unreachable());
  }
  if (response.status === 401) setMetricsKey(null);
  if (!response.ok) throw new Error(`/metrics: ${response.status} ${parseJson(text).value?.reason ?? ''}`.trim());
  latest = parseMetrics(text);
  return latest;
}

// All series: a map from names to values by labels, as written.
function parseMetrics(text) {
  const metrics = new Map();
  for (const line of text.split('\n')) {
    const match = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/.exec(line);
    if (!match) continue;
    if (!metrics.has(match[1])) metrics.set(match[1], new Map());
    metrics.get(match[1]).set(match[2] ?? '', Number(match[3]));
  }
  return metrics;
}

// Failed handshakes by reason, as of the last response; null before the first.
export function handshakeFailures() {
  if (!latest) return null;
  const series = latest.get('h_realtime_handshake_failures_total') ?? new Map();
  return new Map([...series].map(([labels, count]) => [/reason="([^"]*)"/.exec(labels)?.[1] ?? '', count]));
}

// The sum over a metric's series; null if there are none.
export function sumOf(metrics, name) {
  const series = metrics.get(name);
  return series ? [...series.values()].reduce((sum, value) => sum + value, 0) : null;
}

export function valueOf(metrics, name, labels = '') {
  return metrics.get(name)?.get(labels) ?? null;
}
