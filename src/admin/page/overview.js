// The overview of the server, from its metrics alone.
import { $, CLOSE_CODES, POLL_MS, element, setText, timeText } from '/common.js';
import { WINDOW_MS, drawChart } from '/charts.js';
import { clock, loadHistory, saveHistory } from '/history.js';
import { fetchMetrics, sumOf, valueOf } from '/metrics.js';

const GAP_MS = 3 * POLL_MS;
const MOST_BARS = 6;
// What readMetrics makes, oldest first; absent values are null. Those from before a reload have figures for the charts alone.
const samples = loadHistory(WINDOW_MS);
let lastAnswer = null;   // when /metrics answered last
let pollTimer = 0;
let polling = false;

// ---- samples ----

// Returns the upper bounds in seconds with their cumulative counts, the last one infinite; null without such a histogram.
function histogramOf(metrics, name) {
  const series = metrics.get(`${name}_bucket`);
  if (!series) return null;
  const buckets = [...series].map(([labels, count]) => ({ bound: Number(/le="([^"]+)"/.exec(labels)[1].replace('+Inf', 'Infinity')), count }));
  return { buckets, sum: valueOf(metrics, `${name}_sum`), count: valueOf(metrics, `${name}_count`) };
}

// Returns the smallest bound below which this share of the observations between two samples lies; null without observations.
function boundOf(before, now, share) {
  if (!before || !now || now.count <= before.count) return null;
  const wanted = (now.count - before.count) * share;
  return now.buckets.find(({ count }, i) => count - before.buckets[i].count >= wanted)?.bound ?? null;
}

function meanMs(before, now) {
  return before && now && now.count > before.count ? (now.sum - before.sum) * 1000 / (now.count - before.count) : null;
}

function readMetrics(metrics, at) {
  const before = samples.at(-1);
  // A decreased counter means a restart. A long pause would attribute all its events to one point.
  const follows = before && at - before.at <= GAP_MS && before.started === valueOf(metrics, 'process_start_time_seconds');
  const now = {
    at, metrics,
    started: valueOf(metrics, 'process_start_time_seconds'),
    connections: valueOf(metrics, 'h_realtime_connections', 'state="open"'),
    received: sumOf(metrics, 'h_realtime_events_received_total'),
    sent: sumOf(metrics, 'h_realtime_notifications_sent_total'),
    lag: histogramOf(metrics, 'h_realtime_loop_lag_seconds'),
    turn: histogramOf(metrics, 'h_realtime_turn_seconds'),
    latency: histogramOf(metrics, 'h_realtime_event_latency_seconds'),
  };
  const rate = (key) => (follows && now[key] !== null && before[key] !== null && now[key] >= before[key] ? (now[key] - before[key]) * 1000 / (at - before.at) : null);
  return {
    ...now, receivedRate: rate('received'), sentRate: rate('sent'),
    lagMs: follows ? meanMs(before.lag, now.lag) : null, turnMs: follows ? meanMs(before.turn, now.turn) : null,
  };
}

// ---- polling ----

async function poll() {
  if (polling) return;
  polling = true;
  clearTimeout(pollTimer);
  try {
    const metrics = await fetchMetrics();
    const now = clock();
    samples.push(readMetrics(metrics, now));
    while (samples[0].at < now - WINDOW_MS - GAP_MS) samples.shift();
    lastAnswer = new Date();
    show('');
  } catch (error) {
    show(error.message);
  }
  polling = false;
  if (!document.hidden) pollTimer = setTimeout(poll, POLL_MS);
}

// Without a response, all values stay and are marked as stale.
function show(failure) {
  const stale = failure !== '';
  document.querySelector('.overview').dataset.failed = stale;
  $('metrics-state').dataset.failed = stale;
  const since = lastAnswer ? ` The figures are those of ${timeText(lastAnswer).slice(0, -4)}.` : '';
  setText('metrics-state', stale ? `${failure}${since} Trying again every 2 s.` : 'every 2 s');
  const latest = samples.at(-1);
  if (stale) {
    $('backend').dataset.state = 'unknown';
    $('certificate').dataset.state = 'unknown';
  } else {
    showCharted(latest);
    showTiles(latest);
    showBars(latest.metrics);
  }
  drawCharts();
}

// ---- figures ----

const whole = (value) => (value === null ? '–' : value.toLocaleString('en'));
// A histogram as it first was in this time, and since the server's start: there may have been no key for it before.
const earliest = (key) => samples.find((sample) => sample[key] !== null && sample.started === samples.at(-1).started)?.[key] ?? null;
const counted = (count, one, many) => `${whole(count)} ${count === 1 ? one : many}`;

function bytes(value) {
  if (value === null) return '–';
  const at = value < 1 ? 0 : Math.min(4, Math.floor(Math.log2(value) / 10));
  const shown = value / 1024 ** at;
  return `${shown.toFixed(at && shown < 10 ? 1 : 0)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][at]}`;
}

function upTo(seconds) {
  if (seconds === null) return '–';
  if (seconds === Infinity) return 'over 10 s';
  return seconds >= 1 ? `≤ ${seconds} s` : `≤ ${Number((seconds * 1000).toPrecision(3))} ms`;
}

function span(seconds) {
  const [count, unit] = seconds >= 172_800 ? [seconds / 86_400, 'days'] : seconds >= 7_200 ? [seconds / 3_600, 'hours'] : [seconds / 60, 'minutes'];
  return `${Math.floor(count)} ${unit}`;
}

function showCharted(latest) {
  const { metrics } = latest;
  const rate = (value) => value?.toFixed(value < 10 ? 1 : 0) ?? '–';
  const known = Number.isFinite(latest.receivedRate) || Number.isFinite(latest.sentRate);
  setText('connections-now', whole(latest.connections));
  setText('events-now', !isComplete(metrics) ? 'need a key' : known ? `${rate(latest.receivedRate)} received, ${rate(latest.sentRate)} sent` : '–');
  setText('lag-now', latest.lagMs === null ? '–' : `${latest.lagMs.toFixed(1)} ms, turns ${latest.turnMs?.toFixed(1) ?? '–'} ms`);
  const logins = valueOf(metrics, 'h_realtime_connections_logged_in');
  const tls = valueOf(metrics, 'h_realtime_connections_tls');
  setText('connections-more', `${whole(logins)} logged in, ${counted(valueOf(metrics, 'h_realtime_users'), 'user', 'users')}, ${whole(tls)} by TLS`);
  setText('lag-more', `worst in this time: lag ${upTo(boundOf(earliest('lag'), latest.lag, 1))}, turn ${upTo(boundOf(earliest('turn'), latest.turn, 1))}`);
}

// Without a key, metrics that depend on events are absent.
const isComplete = (metrics) => valueOf(metrics, 'h_realtime_metrics_complete') === 1;

function showTiles({ metrics, started, latency }) {
  const ready = valueOf(metrics, 'h_realtime_backend_ready') === 1;
  $('backend').dataset.state = ready ? 'ready' : 'unavailable';
  setText('backend-now', ready ? 'ready' : 'unavailable');
  const losses = sumOf(metrics, 'h_realtime_backend_losses_total');
  setText('backend-more', losses ? `connections to it lost ${counted(losses, 'time', 'times')}` : 'no connection lost');
  setText('latency-now', upTo(boundOf(earliest('latency'), latency, 0.95)));
  setText('latency-more', isComplete(metrics) ? '95 % of the last two minutes' : 'needs a key');
  setText('waiting-now', bytes(valueOf(metrics, 'h_realtime_queued_bytes')));
  setText('waiting-more', !isComplete(metrics) ? 'needs a key' : counted(valueOf(metrics, 'h_realtime_slow_readers'), 'slow reader', 'slow readers'));
  showCertificate(valueOf(metrics, 'h_realtime_certificate_expiry_timestamp_seconds'));
  setText('memory-now', bytes(valueOf(metrics, 'process_resident_memory_bytes')));
  setText('memory-more', `${whole(valueOf(metrics, 'process_open_fds'))} of ${whole(valueOf(metrics, 'process_max_fds'))} files`);
  const version = /version="([^"]*)"/.exec([...metrics.get('h_realtime_build_info')?.keys() ?? []][0] ?? '')?.[1];
  setText('uptime-now', started === null ? '–' : span(Math.max(0, Date.now() / 1000 - started)));
  setText('uptime-more', `version ${version ?? '–'}`);
}

function showCertificate(expiry) {
  const days = expiry === null ? null : Math.floor((expiry - Date.now() / 1000) / 86_400);
  $('certificate').dataset.state = days === null || days >= 14 ? 'good' : 'bad';
  setText('certificate-now', days === null ? 'none' : days < 0 ? 'expired' : counted(days, 'day left', 'days left'));
  setText('certificate-more', expiry === null ? 'no listener with TLS' : `until ${new Date(expiry * 1000).toISOString().slice(0, 10)}`);
}

// ---- bars ----

function showBars(metrics) {
  const labels = (name) => [...metrics.get(name) ?? []].map(([label, count]) => [/"(.*)"/.exec(label)[1], count]);
  drawBars('reasons', labels('h_realtime_disconnects_total'));
  drawBars('codes', labels('h_realtime_close_codes_total').map(([code, count]) => [CLOSE_CODES[code] ? `${code} ${CLOSE_CODES[code]}` : code, count]));
}

function drawBars(id, pairs) {
  const top = pairs.filter(([, count]) => count > 0).sort((a, b) => b[1] - a[1]).slice(0, MOST_BARS);
  const state = JSON.stringify(top);
  if ($(id).dataset.drawn === state) return;
  $(id).dataset.drawn = state;
  $(id).replaceChildren(...top.map(([name, count]) => {
    const row = element('li', 'bar');
    const track = element('span', 'track');
    const fill = element('span', 'fill');
    fill.style.width = `${count / top[0][1] * 100}%`;
    track.append(fill);
    row.append(element('span', 'name', name), element('span', 'count', whole(count)), track);
    return row;
  }));
}

// ---- charts ----

const CHARTS = [
  { canvas: $('connections-chart'), name: 'Open connections', lines: [{ key: 'connections', label: 'connections', color: '--accent', dash: [] }] },
  { canvas: $('events-chart'), name: 'Events per second', lines: [
    { key: 'receivedRate', label: 'events received', color: '--accent', dash: [] },
    { key: 'sentRate', label: 'notifications sent', color: '--second', dash: [5, 3] }] },
  { canvas: $('lag-chart'), name: 'Milliseconds', lines: [
    { key: 'lagMs', label: 'loop lag', color: '--accent', dash: [] },
    { key: 'turnMs', label: 'time of a turn', color: '--second', dash: [5, 3] }] },
];

function drawCharts() {
  for (const chart of CHARTS) drawChart(chart, samples, clock(), GAP_MS);
}

addEventListener('pagehide', () => saveHistory(samples));
document.addEventListener('visibilitychange', () => { if (document.hidden) clearTimeout(pollTimer); else poll(); });
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', drawCharts);
const resized = new ResizeObserver(drawCharts);
for (const { canvas } of CHARTS) resized.observe(canvas);
poll();
