// The API console: messages, filters, and publishing.
import { $, hex, keyOf, onClick, onSubmit, parseJson, randomBytes, setMetricsKey, unreachable } from '/common.js';
import { connect, defaultUrl, disconnect, sendMessage, sendText, showState } from '/connection.js';

// ---- filter ----

export function filterForm() {
  const values = $('filter-values').value.split('\n').map((line) => line.trim()).filter(Boolean);
  return { field: $('filter-field').value, values };
}

export function filterMessage({ field, values }) {
  const clause = { field, operator: 'one_of', value: values, case_sensitive: field !== '/uri' };
  const actions = { create: true, update: true, delete: true };
  return { type: 'filter', filter: { match_policy: 'include_any', clauses: values.length ? [clause] : [], actions } };
}

// ---- publishing ----

let sample = '';     // the text of the last generated event; an edited event is overwritten only on request
let publishing = false;

// The shape of h's ids: 16 bytes in URL-safe base64 without padding.
function randomId() {
  return btoa(String.fromCharCode(...randomBytes(16))).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

// An annotation that matches the filter in the form, so that publishing it results in a notification.
function sampleEvent() {
  const { field, values } = filterForm();
  const filtered = (name, otherwise) => (field === name && values.length ? values[0] : otherwise);
  const id = filtered('/id', randomId());
  const uri = filtered('/uri', filtered('/wildcard_uri', 'https://example.org/').replaceAll('*', ''));
  const group = filtered('/group', '__world__');
  const author = filtered('/user', 'joe.bloggs').replace(/^acct:/, '');
  const user = `acct:${author.includes('@') ? author : `${author}@example.org`}`;
  const now = new Date().toISOString();
  const annotation = {
    id, created: now, updated: now, user, uri, text: 'Hello from the admin page', tags: [filtered('/tags', 'sample')], group,
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
  if (!ok || value === null || typeof value !== 'object') return showResult('', 'The event is not one JSON object: set its action manually.');
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
    showResult('bad', $('publish-key').value.trim() ? 'The key contains invalid characters.' : 'The publish key is needed.');
    return $('publish-key').focus();
  }
  const text = $('publish-event').value;
  // The server reads one event per line. JSON strings contain no raw line breaks, so joining the lines of one value does not change it.
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
    showResult('bad', unreachable());
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
