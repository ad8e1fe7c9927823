// The last events as they come: what happened, and to how many connections it was of interest. It needs the publish key.
import { $, POLL_MS, POLL_TIMEOUT_MS, element, keyOf, onSubmit, parseJson, say, setMetricsKey, timeText, unreachable } from '/common.js';

const MOST_ROWS = 100;
let last = 0;            // the number of the newest event that was seen
let watching = false;
let asking = false;
let timer = 0;

function showState(state, text) {
  $('tail-state').dataset.state = state;
  say('tail-state', text);
  say('watch', watching ? 'Stop' : 'Watch');
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
  ask();
}

async function ask() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const key = keyOf('tail-key');
    const headers = { Authorization: `Bearer ${key}` };
    const response = await fetch(`/tail?after=${last}`, { headers, cache: 'no-store', signal: AbortSignal.timeout(POLL_TIMEOUT_MS) });
    const answer = parseJson(await response.text()).value;
    // 404: there are no last events without a publish key, but it may be the metrics key.
    if (response.ok || response.status === 404) setMetricsKey(key);
    if (!watching) return;
    if (!response.ok) return stop('failed', `${response.status} ${answer?.reason ?? ''}`);
    showEvents(answer);
    showState('open', 'Watching');
  } catch {
    if (watching) showState('failed', `${unreachable()} Trying again every 2 s.`);
  } finally {
    asking = false;
    if (watching && !document.hidden) timer = setTimeout(ask, POLL_MS);
  }
}

// The newest first. A server that has begun to count anew has been restarted.
function showEvents({ last: newest, events }) {
  if (newest < last) $('tail-rows').replaceChildren();
  last = newest;
  $('tail-rows').prepend(...events.slice(-MOST_ROWS).reverse().map(rowOf));
  while ($('tail-rows').childElementCount > MOST_ROWS) $('tail-rows').lastElementChild.remove();
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

// There is one key, whichever of the two places it was typed into.
for (const [from, to] of [['tail-key', 'publish-key'], ['publish-key', 'tail-key']]) {
  $(from).addEventListener('input', () => { $(to).value = $(from).value; });
}
onSubmit('tailing', toggle);
document.addEventListener('visibilitychange', () => { if (document.hidden) clearTimeout(timer); else if (watching) ask(); });
