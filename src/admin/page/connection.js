// The connection to the Real Time API: its identity, the causes of failures, and reconnecting.
import { $, CLOSE_CODES, element, hex, parseJson } from '/common.js';
import { likelyCauses, refusalsSince } from '/causes.js';
import { logFrame, logNote } from '/log.js';
import { handshakeFailures } from '/metrics.js';

const FIRST_RETRY_MS = 1_000;
const LONGEST_RETRY_MS = 30_000;
// A connection that lasts this long is stable: after its loss, the delay starts from the minimum again.
const STABLE_MS = 10_000;
// The connection was lost, or the server is shutting down or busy. After any other code, a retry would fail in the same way.
const RETRIED_CODES = new Set([1001, 1006, 1011, 1012, 1013]);
// The number of failed retries after which the likely causes are listed. A restart takes fewer.
const TRIES_UNEXPLAINED = 3;
// The id of the page's own whoami. The ids of the user's messages start at 1.
const IDENTITY_ID = 0;

let socket = null;
// The intended connection: { url, identified, opened, tries, filter, clientId }. null if there is none to restore.
let session = null;
let explained = null;    // the last session whose failure was explained
let retryTimer = 0;
let nextId = 1;

// ---- display ----

export function showState(state, text, identity = '') {
  $('state').dataset.state = state;
  $('state').dataset.identity = identity;
  $('state').textContent = text;
  const open = state === 'open';
  // aria-disabled rather than disabled: a disabled button would lose the keyboard focus when the connection closes.
  const allow = (id, yes) => $(id).setAttribute('aria-disabled', String(!yes));
  allow('connect', socket === null);
  allow('disconnect', open || state === 'connecting' || session !== null);
  for (const id of ['ping', 'whoami', 'client-id', 'set-filter', 'send']) allow(id, open);
}

function showCauses(causes) {
  $('causes').hidden = causes.length === 0;
  $('causes').replaceChildren(...causes.map(({ cause, advice, link }) => {
    const item = element('li', '');
    item.append(element('b', '', cause), ' ', element('span', '', advice));
    if (link) {
      const anchor = element('a', '', link);
      Object.assign(anchor, { href: link, target: '_blank', rel: 'noopener noreferrer' });
      item.append(' ', anchor);
    }
    return item;
  }));
}

function closeText(event) {
  if (event.code === 1006) return 'Closed: 1006 (the connection ended without a close frame)';
  const meaning = CLOSE_CODES[event.code];
  return `Closed: ${event.code}${meaning ? ` (${meaning})` : ''}${event.reason ? `, reason “${event.reason}”` : ', no reason given'}`;
}

// ---- connecting ----

// The URL of the listener that the server proposes, with a host name that this page can reach.
export function defaultUrl() {
  const given = document.querySelector('meta[name=h-realtime-ws]').content.trim();
  if (given && !given.startsWith('{{')) {
    const url = new URL(given);
    // The server listens on all addresses, including the one of this page.
    if (url.hostname === '0.0.0.0' || url.hostname === '[::]') url.hostname = location.hostname;
    return url.href;
  }
  return `${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.hostname || '127.0.0.1'}:5001/ws`;
}

// Returns the URL in the form with its token. If it is invalid, shows the reason and returns null.
function urlOfForm() {
  const typed = $('ws-url').value.trim();
  const url = URL.canParse(typed) ? new URL(typed) : null;
  if (!url || !/^wss?:$/.test(url.protocol)) {
    showState('failed', 'Not a WebSocket URL: it must start with ws:// or wss://');
    return null;
  }
  url.hash = '';
  if ($('token').value) url.searchParams.set('access_token', $('token').value);
  return url;
}

export function connect() {
  if (socket) return;
  clearTimeout(retryTimer);
  const lost = session;
  session = explained = null;
  showCauses([]);
  const url = urlOfForm();
  if (!url) return;
  // The URL of the lost connection: this is its next retry, only earlier.
  session = lost?.url.href === url.href ? lost : { url, identified: url.searchParams.has('access_token'), opened: false, tries: 0 };
  open('Connecting…');
}

function open(text) {
  const wanted = session;
  const before = handshakeFailures();
  const began = performance.now();
  let opened = null;
  try {
    socket = new WebSocket(wanted.url);
  } catch {
    session = null;
    // The exception's own message quotes the URL, and with it the token.
    showState('failed', 'Not connected: the browser refuses to connect to this URL');
    return explain(wanted, null);
  }
  const current = socket;
  showState('connecting', text);
  logNote(`connecting to ${wanted.url.protocol}//${wanted.url.host}${wanted.url.pathname}${wanted.identified ? ', offering a token' : ' without a token'}`);
  current.binaryType = 'arraybuffer';
  current.addEventListener('open', () => {
    opened = performance.now();
    onOpen(wanted);
  });
  current.addEventListener('message', (event) => {
    const text = typeof event.data === 'string' ? event.data : binaryText(event.data);
    logFrame('in', text);
    noteIdentity(wanted, text);
  });
  current.addEventListener('close', (event) => {
    socket = null;
    if (opened !== null && performance.now() - opened >= STABLE_MS) wanted.tries = 0;
    onClose(wanted, event, opened !== null, { before, began });
  });
}

function onOpen(wanted) {
  const again = wanted.opened;
  wanted.opened = true;
  showCauses([]);
  showState('open', 'Connected; waiting for the identity');
  logNote('open');
  sendMessage({ type: 'whoami' }, IDENTITY_ID);
  if (!again) return;
  for (const text of [wanted.clientId, wanted.filter]) if (text) sendText(text);
}

// Shows the user as whom the server serves this connection. With an invalid token, the connection may be anonymous.
function noteIdentity(wanted, text) {
  const { ok, value } = parseJson(text);
  if (!ok || value?.type !== 'whoyouare' || socket?.readyState !== WebSocket.OPEN) return;
  const user = typeof value.userid === 'string' ? value.userid : null;
  const [identity, status] = user !== null ? ['user', `Connected as ${user}`]
    : wanted.identified ? ['refused', 'Connected anonymously: the token was not accepted. It is unknown, expired, or revoked.']
      : ['anonymous', 'Connected anonymously, without a token'];
  if ($('state').textContent === status) return;
  showState('open', status, identity);
  logNote(status);
}

// ---- close ----

function onClose(wanted, event, opened, attempt) {
  const left = session !== wanted;
  const text = opened ? closeText(event) : left ? 'Not connected: canceled' : 'Not connected: the server is not reachable, or it refused the handshake';
  const state = event.wasClean || left ? 'closed' : 'failed';
  logNote(text);
  if (!left && wanted.opened && (!opened || RETRIED_CODES.has(event.code))) {
    retryLater(wanted, state, text);
    if (!opened && wanted.tries > TRIES_UNEXPLAINED) explain(wanted, attempt);
    return;
  }
  if (!left) session = null;
  showState(state, text);
  if (!opened && !left) explain(wanted, attempt);
}

function retryLater(wanted, state, text) {
  const delay = Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** wanted.tries);
  wanted.tries = Math.min(wanted.tries + 1, 10);
  // Jitter, so that the pages of several operators do not reconnect at once.
  const spread = delay * (0.75 + Math.random() / 2);
  const number = wanted.tries;
  showState(state, `${text}. Reconnecting in ${Math.max(1, Math.round(spread / 1000))} s.`);
  logNote(`reconnecting in ${(spread / 1000).toFixed(1)} s, try ${number}`);
  retryTimer = setTimeout(() => open(`${text}. Reconnecting, try ${number} …`), spread);
}

// Browsers do not report why a handshake failed. Shows likely causes, and the refusals that the server has counted meanwhile.
async function explain(wanted, attempt) {
  const place = { origin: location.origin, protocol: location.protocol, offered: defaultUrl() };
  explained = wanted;
  const causes = likelyCauses(wanted.url, place, attempt ? performance.now() - attempt.began : 0);
  showCauses(causes);
  const refusals = attempt ? await refusalsSince(attempt.before) : [];
  if (refusals.length && socket === null && explained === wanted) showCauses([...refusals, ...causes]);
}

export function disconnect() {
  clearTimeout(retryTimer);
  session = null;
  if (!socket) return showState('closed', 'Not connected: no further try to reconnect');
  if (socket.readyState > WebSocket.OPEN) return;
  showState('closing', 'Closing…');
  socket.close(1000);
}

// ---- messages ----

function binaryText(buffer) {
  const bytes = new Uint8Array(buffer);
  return `binary, ${bytes.length} bytes: ${hex(bytes.subarray(0, 64)).join(' ')}${bytes.length > 64 ? ' …' : ''}`;
}

// Stores the client id and the filter, which are sent again after reconnecting.
function keep(text) {
  const { ok, value } = parseJson(text);
  if (!ok || value === null || typeof value !== 'object' || !session) return;
  const type = value.type ?? value.messageType ?? ('filter' in value ? 'filter' : null);
  if (type === 'filter') session.filter = text;
  if (type === 'client_id') session.clientId = text;
}

export function sendText(text) {
  if (socket?.readyState !== WebSocket.OPEN) return logNote('not connected: nothing was sent');
  socket.send(text);
  keep(text);
  logFrame('out', text);
}

export function sendMessage(message, id = nextId++) {
  sendText(JSON.stringify({ ...message, id }));
}
