// Functions that the scripts of the page share. Text from peers is untrusted: it is displayed only through textContent and data
// attributes.
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

// Screen readers announce every write to a live region, so unchanged text is not written.
export function setText(id, text) {
  if ($(id).textContent !== text) $(id).textContent = text;
}

export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0'));
}

export function randomBytes(count) {
  return crypto.getRandomValues(new Uint8Array(count));
}

// The message shown if the admin listener does not respond.
export function unreachable() {
  return `No answer from ${location.host}: the server has stopped, or the tunnel or proxy to it is closed.`;
}

// Returns the key, or null if it contains invalid characters.
export function keyOf(id) {
  const key = $(id).value.trim();
  return /^[\x21-\x7e]+$/.test(key) ? key : null;
}

// A key that the server has accepted: with it, /metrics returns all metrics.
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
