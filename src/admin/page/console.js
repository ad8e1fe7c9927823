// The API console: a connection, what is said on it both ways, and publishing.
import { $, CLOSE_CODES, element, keyOf, onClick, onSubmit, parseJson, setMetricsKey, timeText } from '/common.js';

const MAX_FRAMES = 500;
const LINE_CHARS = 600;
const ANNOUNCE_GAP_MS = 10_000;

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0'));
}

// ---- JSON text ----

// Lays valid JSON out from its own tokens. JSON.stringify would round long numbers, and a reply must be seen as it was sent.
function layoutJson(text, indented) {
  const tokens = text.match(/"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  let depth = 0;
  // The cap keeps deep nesting from growing the output with the square of the depth.
  const newline = () => (indented ? '\n' + '  '.repeat(Math.min(depth, 40)) : '');
  const parts = [];
  for (let i = 0; i < tokens.length; i++) {
    const token = tokens[i];
    if (token === '{' || token === '[') {
      if (tokens[i + 1] === '}' || tokens[i + 1] === ']') { parts.push(token, tokens[++i]); continue; }
      depth++;
      parts.push(token, newline());
    } else if (token === '}' || token === ']') {
      depth--;
      parts.push(newline(), token);
    } else if (token === ',') {
      parts.push(',', indented ? newline() : ' ');
    } else {
      parts.push(token === ':' ? ': ' : token);
    }
  }
  return parts.join('');
}

// ---- frame log ----

const log = $('log');
let waiting = [];        // rows not drawn yet: drawn once a display frame, however many arrive
let frameCount = 0;
let following = true;    // false while the reader has scrolled up
let tabStop = null;      // the one summary in the tab order; arrow keys reach the others
let unheard = [];
let lastAnnounced = -ANNOUNCE_GAP_MS;
let announceTimer = 0;

function frameName(value) {
  if (value === null || typeof value !== 'object') return '';
  const action = value.options?.action;
  const name = value.type ?? value.messageType ?? '';
  return [name, action].filter((part) => typeof part === 'string').join(' ').slice(0, 60);
}

function logFrame(direction, raw) {
  const parsed = parseJson(raw);
  const row = element('details', 'frame');
  row.dataset.direction = direction;
  row.dataset.raw = raw;
  const name = parsed.ok ? frameName(parsed.value) : 'not JSON';
  const line = parsed.ok ? layoutJson(raw, false) : raw;
  const summary = element('summary', '');
  summary.tabIndex = -1;
  summary.append(element('span', 'time', timeText(new Date())), element('span', 'way', direction === 'in' ? '← in' : '→ out'),
    element('span', 'what', name), element('span', 'line', line.slice(0, LINE_CHARS)));
  row.append(summary);
  row.addEventListener('toggle', () => {
    if (row.open && row.children.length === 1) row.append(element('pre', '', parsed.ok ? layoutJson(raw, true) : raw));
    noteScroll();
  });
  frameCount++;
  queueRow(row);
  if (direction === 'in') announceLater(name || 'a frame');
}

function logNote(text) {
  const row = element('div', 'note');
  row.append(element('span', 'time', timeText(new Date())), element('span', '', text));
  queueRow(row);
}

function queueRow(row) {
  if (waiting.push(row) === 1) requestAnimationFrame(drawRows);
  if (waiting.length > MAX_FRAMES) waiting.shift();
}

function drawRows() {
  log.append(...waiting);
  waiting = [];
  const reading = log.contains(document.activeElement);
  while (log.childElementCount > MAX_FRAMES) log.firstElementChild.remove();
  const summaries = log.getElementsByTagName('summary');
  if (reading && !log.contains(document.activeElement)) summaries[0]?.focus();
  else if (!reading) setTabStop(summaries[summaries.length - 1]);
  $('log-count').textContent = `${frameCount.toLocaleString('en')} frame${frameCount === 1 ? '' : 's'}`;
  if (following) log.scrollTop = log.scrollHeight;
}

function setTabStop(summary) {
  if (tabStop) tabStop.tabIndex = -1;
  tabStop = summary ?? null;
  if (tabStop) tabStop.tabIndex = 0;
}

function noteScroll() {
  following = log.scrollHeight - log.scrollTop - log.clientHeight < 8;
  $('newest').hidden = following;
}

function announceLater(name) {
  unheard.push(name);
  if (announceTimer) return;
  const delay = Math.max(1_000, lastAnnounced + ANNOUNCE_GAP_MS - performance.now());
  announceTimer = setTimeout(() => {
    $('announcer').textContent = unheard.length === 1 ? `Received ${unheard[0]}` : `${unheard.length} frames received`;
    unheard = [];
    announceTimer = 0;
    lastAnnounced = performance.now();
  }, delay);
}

log.addEventListener('scroll', noteScroll);
log.addEventListener('focusin', (event) => { if (event.target.matches('summary')) setTabStop(event.target); });
log.addEventListener('keydown', (event) => {
  const summaries = [...log.getElementsByTagName('summary')];
  const at = summaries.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: summaries.length - 1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  summaries[to]?.focus();
});
onClick('newest', () => {
  log.scrollTop = log.scrollHeight;
  [...log.getElementsByTagName('summary')].at(-1)?.focus();
});
onClick('clear', () => {
  waiting = [];
  log.replaceChildren();
  frameCount = 0;
  setTabStop(null);
  noteScroll();
  $('log-count').textContent = '0 frames';
});

// ---- connection ----

let socket = null;
let nextId = 1;

function showState(state, text) {
  $('state').dataset.state = state;
  $('state').textContent = text;
  const open = state === 'open';
  // aria-disabled and not disabled: a disabled button would drop the keyboard's place when the connection ends.
  const allow = (id, yes) => $(id).setAttribute('aria-disabled', String(!yes));
  allow('connect', socket === null);
  allow('disconnect', open || state === 'connecting');
  for (const id of ['ping', 'whoami', 'client-id', 'set-filter', 'send']) allow(id, open);
}

function defaultUrl() {
  const given = document.querySelector('meta[name=h-realtime-ws]').content.trim();
  if (given && !given.startsWith('{{')) {
    const url = new URL(given);
    // It listens on all addresses: the one that this page came from is one of them.
    if (url.hostname === '0.0.0.0' || url.hostname === '[::]') url.hostname = location.hostname;
    return url.href;
  }
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.hostname || '127.0.0.1'}:5001/ws`;
}

function connect() {
  if (socket) return;
  const typed = $('ws-url').value.trim();
  const url = URL.canParse(typed) ? new URL(typed) : null;
  if (!url || !/^wss?:$/.test(url.protocol)) return showState('failed', 'Not a WebSocket URL: it has to begin with ws:// or wss://');
  url.hash = '';
  if ($('token').value) url.searchParams.set('access_token', $('token').value);
  const identified = url.searchParams.has('access_token');
  try {
    socket = new WebSocket(url);
  } catch {
    // The exception's own message quotes the URL, and with it the token.
    return showState('failed', 'The browser refuses to connect to this URL');
  }
  const place = `${url.protocol}//${url.host}${url.pathname}${identified ? ' with a token' : ' anonymously'}`;
  showState('connecting', 'Connecting…');
  logNote(`connecting to ${place}`);
  socket.binaryType = 'arraybuffer';
  let opened = false;
  socket.addEventListener('open', () => {
    opened = true;
    showState('open', 'Connected');
    logNote('open');
  });
  socket.addEventListener('message', (event) => logFrame('in', typeof event.data === 'string' ? event.data : binaryText(event.data)));
  socket.addEventListener('close', (event) => {
    socket = null;
    const text = closeText(event, opened);
    showState(event.wasClean ? 'closed' : 'failed', text);
    logNote(text);
  });
}

function closeText(event, opened) {
  if (!opened) return 'Not connected: the server is not reachable, or it refused the handshake';
  if (event.code === 1006) return 'Closed: 1006 (the connection ended without a close frame)';
  const meaning = CLOSE_CODES[event.code];
  return `Closed: ${event.code}${meaning ? ` (${meaning})` : ''}${event.reason ? `, reason “${event.reason}”` : ', no reason given'}`;
}

function binaryText(buffer) {
  const bytes = new Uint8Array(buffer);
  return `binary, ${bytes.length} bytes: ${hex(bytes.subarray(0, 64)).join(' ')}${bytes.length > 64 ? ' …' : ''}`;
}

function disconnect() {
  if (!socket || socket.readyState > WebSocket.OPEN) return;
  showState('closing', 'Closing…');
  socket.close(1000);
}

function sendText(text) {
  if (socket?.readyState !== WebSocket.OPEN) return logNote('not connected: nothing was sent');
  socket.send(text);
  logFrame('out', text);
}

function sendMessage(message) {
  sendText(JSON.stringify({ ...message, id: nextId++ }));
}

function randomBytes(count) {
  return crypto.getRandomValues(new Uint8Array(count));
}

// ---- filter ----

function filterForm() {
  const values = $('filter-values').value.split('\n').map((line) => line.trim()).filter(Boolean);
  return { field: $('filter-field').value, values };
}

function filterMessage({ field, values }) {
  const clause = { field, operator: 'one_of', value: values, case_sensitive: field !== '/uri' };
  const actions = { create: true, update: true, delete: true };
  return { type: 'filter', filter: { match_policy: 'include_any', clauses: values.length ? [clause] : [], actions } };
}

// ---- publishing ----

let sample = '';     // the text of the last generated event: an event that was edited is never overwritten unasked
let publishing = false;

// The shape of h's ids: 16 bytes in URL-safe base64 without padding.
function randomId() {
  return btoa(String.fromCharCode(...randomBytes(16))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

// An annotation that the filter in the form matches, so that publishing it shows something.
function sampleEvent() {
  const { field, values } = filterForm();
  const wanted = (name, otherwise) => (field === name && values.length ? values[0] : otherwise);
  const id = wanted('/id', randomId());
  const uri = wanted('/uri', 'https://example.com/');
  const group = wanted('/group', '__world__');
  const user = 'acct:joe.bloggs@example.org';
  const now = new Date().toISOString();
  const annotation = {
    id, created: now, updated: now, user, uri, text: 'Hello from the admin page', tags: ['sample'], group,
    permissions: { read: [`group:${group}`], admin: [user], update: [user], delete: [user] },
    target: [{ source: uri }], document: { title: ['Example page'] }, links: {},
  };
  if (field === '/references' && values.length) annotation.references = [values[0]];
  return { topic: 'annotation', action: $('publish-action').value, annotation_id: id, src_client_id: null, annotation, uris: [] };
}

function fillSample() {
  sample = JSON.stringify(sampleEvent(), null, 2);
  $('publish-event').value = sample;
}

function refreshSample() {
  if ($('publish-event').value === sample) fillSample();
}

function applyAction() {
  const box = $('publish-event');
  const { ok, value } = parseJson(box.value);
  if (!ok || value === null || typeof value !== 'object') return showResult('', 'The event is not one JSON object: set its action by hand.');
  value.action = $('publish-action').value;
  const text = JSON.stringify(value, null, 2);
  if (box.value === sample) sample = text;
  box.value = text;
}

function showResult(outcome, text) {
  $('publish-result').dataset.outcome = outcome;
  $('publish-result').textContent = text;
}

async function publish() {
  if (publishing) return;
  const key = keyOf('publish-key');
  if (key === null) {
    showResult('bad', $('publish-key').value.trim() ? 'The key has characters that no key has.' : 'The publish key is needed.');
    return $('publish-key').focus();
  }
  const text = $('publish-event').value;
  // The server reads one event a line. No JSON string holds a raw line break, so joining the lines of one value changes nothing in it.
  const body = parseJson(text).ok ? text.trim().replace(/\s*[\r\n]\s*/g, ' ') : text;
  publishing = true;
  showResult('', 'Sending…');
  try {
    const headers = { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' };
    const response = await fetch('/events', { method: 'POST', headers, body, cache: 'no-store' });
    const answer = (await response.text()).trim().slice(0, 2_000);
    if (response.ok) setMetricsKey(key);
    const unmatched = response.ok && parseJson(answer).value?.matched === 0;
    showResult(response.ok ? 'good' : 'bad', `${response.status} ${answer}${unmatched ? '\nNo connection has a filter that matches it.' : ''}`);
  } catch {
    showResult('bad', 'The server is not reachable.');
  } finally {
    publishing = false;
  }
}

// ---- wiring ----

$('ws-url').value = defaultUrl();
showState('idle', 'Not connected');
fillSample();
onSubmit('connection', connect);
onSubmit('filter', () => { refreshSample(); sendMessage(filterMessage(filterForm())); });
onSubmit('free', () => sendText($('message').value));
onSubmit('publishing', publish);
onClick('disconnect', disconnect);
onClick('ping', () => sendMessage({ type: 'ping' }));
onClick('whoami', () => sendMessage({ type: 'whoami' }));
onClick('client-id', () => sendMessage({ type: 'client_id', value: hex(randomBytes(16)).join('') }));
onClick('new-sample', fillSample);
$('filter').addEventListener('change', refreshSample);
$('publish-action').addEventListener('change', applyAction);
for (const box of document.querySelectorAll('textarea')) {
  box.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) { event.preventDefault(); box.form.requestSubmit(); }
  });
}
