// What the parts of the page share. Everything that comes from a peer is hostile text: it reaches the page through textContent
// and data attributes only.
export const $ = (id) => document.getElementById(id);
export const POLL_MS = 2_000;
export const POLL_TIMEOUT_MS = 5_000;

export function onClick(id, action) {
  $(id).addEventListener('click', action);
}

export function onSubmit(id, action) {
  $(id).addEventListener('submit', (event) => { event.preventDefault(); action(); });
}

export function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

export function timeText(date) {
  const two = (n) => String(n).padStart(2, '0');
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${String(date.getMilliseconds()).padStart(3, '0')}`;
}

export function parseJson(text) {
  try { return { ok: true, value: JSON.parse(text) }; } catch { return { ok: false }; }
}

// A live region speaks whenever it is written, so it is written only on change.
export function say(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0'));
}

export function randomBytes(count) {
  return crypto.getRandomValues(new Uint8Array(count));
}

// What is said when the admin listener, which this page came from, does not answer.
export function unreachable() {
  return `No answer from ${location.host}: the server has ended, or the tunnel or proxy to it is closed.`;
}

// The key's characters, if they can be a key's; else null.
export function keyOf(id) {
  const key = $(id).value.trim();
  return /^[\x21-\x7e]+$/.test(key) ? key : null;
}

// A key that the server has not refused: with it, /metrics has all metrics.
let metricsKey = null;
export function setMetricsKey(key) { metricsKey = key; }
export function metricsHeaders() {
  return metricsKey === null ? {} : { Authorization: `Bearer ${metricsKey}` };
}

export const CLOSE_CODES = {
  1000: 'normal', 1001: 'going away', 1002: 'protocol error', 1003: 'unsupported data', 1005: 'no code given',
  1006: 'no close frame', 1007: 'invalid message', 1008: 'policy violation', 1009: 'message too big', 1011: 'server error',
  1012: 'service restart', 1013: 'try again later', 3000: 'unauthorized',
};
