// Keeps the values of the charts when the page is reloaded, in the session storage of the tab. Keys are not stored.
const KEY = 'h-realtime-history';
const MOST_SAMPLES = 100;
const MOST_CHARS = 65_536;
const FIELDS = ['started', 'connections', 'received', 'sent', 'receivedRate', 'sentRate', 'lagMs', 'turnMs'];
const ABSENT = { metrics: null, lag: null, turn: null, latency: null };

// Milliseconds on a clock that continues when the page is reloaded.
export function clock() {
  return performance.timeOrigin + performance.now();
}

export function saveHistory(samples) {
  const rows = samples.slice(-MOST_SAMPLES).map((sample) => [sample.at, ...FIELDS.map((field) => sample[field])]);
  // If the storage is disabled or full, the charts start empty.
  try { sessionStorage.setItem(KEY, JSON.stringify(rows)); } catch { /* as before there was a history */ }
}

// The samples of this window that were saved in order; anything else in the storage is ignored.
export function loadHistory(windowMs) {
  let rows = null;
  try {
    const text = sessionStorage.getItem(KEY);
    if (text !== null && text.length <= MOST_CHARS) rows = JSON.parse(text);
  } catch { /* as if there were none */ }
  if (!Array.isArray(rows)) return [];
  const now = clock();
  const samples = [];
  for (const row of rows.slice(-MOST_SAMPLES)) {
    if (!Array.isArray(row) || row.length !== FIELDS.length + 1) continue;
    const [at, ...values] = row;
    const sound = Number.isFinite(at) && at <= now && at >= now - windowMs && at > (samples.at(-1)?.at ?? 0)
      && values.every((value) => value === null || (Number.isFinite(value) && value >= 0));
    if (sound) samples.push({ at, ...ABSENT, ...Object.fromEntries(FIELDS.map((field, i) => [field, values[i]])) });
  }
  return samples;
}
