// Recent events: the action, the annotation, and the number of matching connections. Requires the publish key.
import { $, POLL_MS, POLL_TIMEOUT_MS, element, keyOf, onSubmit, parseJson, setText, setMetricsKey, timeText, unreachable } from '/common.js';

const MAX_ROWS = 100;
let last = 0;            // the number of the newest event received
let watching = false;
let polling = false;
let timer = 0;

function showState(state, text) {
  $('tail-state').dataset.state = state;
  setText('tail-state', text);
  setText('watch', watching ? 'Stop' : 'Watch');
}

function stop(state, text) {
  watching = false;
  clearTimeout(timer);
  showState(state, text);
}

function toggle() {
  if (watching) return stop('idle', 'Not watching');
  if (keyOf('tail-key') === null) {
    showState('failed', 'The publish key is needed.');
    return $('tail-key').focus();
  }
  watching = true;
  showState('open', 'Watching');
  poll();
}

async function poll() {
  if (polling) return;
  polling = true;
  clearTimeout(timer);
  try {
    const key = keyOf('tail-key');
    const headers = { Authorization: `Bearer ${key}` };
    const response = await fetch(`/tail?after=${last}`, { headers, cache: 'no-store', signal: AbortSignal.timeout(POLL_TIMEOUT_MS) });
    const answer = parseJson(await response.text()).value;
    // 404: without a publish key there are no recent events, but the key may be the metrics key.
    if (response.ok || response.status === 404) setMetricsKey(key);
    if (!watching) return;
    if (!response.ok) return stop('failed', `${response.status} ${answer?.reason ?? ''}`);
    showEvents(answer);
    showState('open', 'Watching');
  } catch {
    if (watching) showState('failed', `${unreachable()} Trying again every 2 s.`);
  } finally {
    polling = false;
    if (watching && !document.hidden) timer = setTimeout(poll, POLL_MS);
  }
}

// Newest first. A lower number means that the server has been restarted.
function showEvents({ last: newest, events }) {
  if (newest < last) $('tail-rows').replaceChildren();
  last = newest;
  $('tail-rows').prepend(...events.slice(-MAX_ROWS).reverse().map(rowOf));
  while ($('tail-rows').childElementCount > MAX_ROWS) $('tail-rows').lastElementChild.remove();
}

function rowOf(event) {
  const row = element('tr', '');
  const about = element('td', 'about');
  about.append(element('span', 'mono', event.id ?? '–'));
  if (event.group !== null) about.append(' ', element('span', 'hint', `in ${event.group}`));
  const at = timeText(new Date(event.time));
  const time = element('td', 'time mono', at.slice(0, -4));
  time.append(element('span', 'ms', at.slice(-4)));
  row.append(time, element('td', 'action', event.action), about,
    element('td', 'matched', event.matched.toLocaleString('en')));
  return row;
}

// All fields hold the same key.
const KEY_FIELDS = ['tail-key', 'publish-key', 'explain-key'];
for (const from of KEY_FIELDS) {
  $(from).addEventListener('input', () => { for (const to of KEY_FIELDS) if (to !== from) $(to).value = $(from).value; });
}
onSubmit('tailing', toggle);
document.addEventListener('visibilitychange', () => { if (document.hidden) clearTimeout(timer); else if (watching) poll(); });
