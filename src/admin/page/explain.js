// Explanations: whether a connection is notified of an event, and the reason. Requires the publish key.
import { $, element, keyOf, onSubmit, parseJson, setMetricsKey, timeText, unreachable } from '/common.js';
import { filterForm, filterMessage } from '/console.js';

let explaining = false;

function showResult(outcome, text) {
  $('explain-result').dataset.outcome = outcome;
  $('explain-result').textContent = text;
}

function showKind() {
  const open = $('explain-kind').value === 'open';
  for (const field of document.querySelectorAll('#explaining .supposed')) field.hidden = open;
  $('explain-client-hint').textContent = open ? '' : 'optional';
}

// Returns the value of a field: an object if it is JSON, and otherwise its text.
function jsonOrText(text) {
  const { ok, value } = parseJson(text);
  return ok && value !== null && typeof value === 'object' ? value : text;
}

function request() {
  const text = (id) => $(id).value.trim();
  const [client, annotation] = [text('explain-client'), text('explain-annotation')];
  const event = annotation === '' ? {} : { annotation: jsonOrText(annotation) };
  if ($('explain-kind').value === 'open') return { client, ...event };
  const given = text('explain-filter');
  const filter = given === '' ? filterMessage(filterForm()).filter : jsonOrText(given);
  return { user: text('explain-user') || null, filter, client_id: client || null, ...event };
}

async function explain() {
  if (explaining) return;
  const key = keyOf('explain-key');
  if (key === null) {
    showResult('bad', 'The publish key is needed.');
    return $('explain-key').focus();
  }
  explaining = true;
  showResult('', 'Asking…');
  $('explain-details').replaceChildren();
  try {
    const headers = { Authorization: `Bearer ${key}`, 'Content-Type': 'application/json' };
    const body = JSON.stringify(request());
    const response = await fetch('/explain', { method: 'POST', headers, body, cache: 'no-store' });
    const answer = parseJson(await response.text()).value ?? {};
    if (!response.ok) return showResult('bad', `${response.status} ${answer.reason ?? ''}`);
    setMetricsKey(key);
    showAnswer(answer);
  } catch {
    showResult('bad', unreachable());
  } finally {
    explaining = false;
  }
}

function showAnswer(answer) {
  const isPositive = answer.would_notify ?? answer.open_connections > 0;
  showResult(isPositive ? 'yes' : 'no', answer.summary);
  const details = answer.connections?.flatMap(connectionDetails) ?? verdictDetails(answer);
  const raw = element('details', '');
  raw.append(element('summary', '', 'The answer as JSON'), element('pre', '', JSON.stringify(answer, null, 2)));
  $('explain-details').replaceChildren(...details, raw);
}

function list(title, lines) {
  const items = element('ul', 'reasons');
  items.append(...lines.map((line) => element('li', '', line)));
  return [element('h3', '', title), items];
}

function verdictDetails({ filter, access, own_event: own, variant }) {
  const details = [];
  if (filter?.clauses) details.push(...list('Filter', filter.clauses.flatMap(clauseLines)));
  else if (filter) details.push(...list('Filter', [filterState(filter)]));
  if (access) details.push(...list('Permissions, of which the first rule that applies decides', access.rules.map(ruleLine)));
  if (own?.source_client_id) details.push(...list('Caused by', [`client id ${own.source_client_id}`]));
  if (variant) details.push(...list('Message', [`as for ${variant.receiver}, ${variant.bytes} bytes`]));
  return details;
}

function filterState({ error, is_set: isSet, matches }) {
  if (error) return error;
  if (!isSet) return 'not set';
  return matches === undefined ? 'set' : matches ? 'matches' : 'does not match';
}

function clauseLines(clause) {
  if (clause.ignored) return [`${clause.field}: ignored: ${clause.ignored}`];
  const remark = clause.operator === 'not_one_of' ? 'excluding' : clause.note;
  const field = remark ? `${clause.field} (${remark})` : clause.field;
  const values = clause.values.map(({ value, normalized, matches }) => {
    const form = normalized ? ` (normalized: ${normalized.join(', ')})` : '';
    return `${field}: ${value}${form} ${matches ? 'matches' : 'does not match'}`;
  });
  return [...values, `${clause.field} of the annotation: ${clause.annotation.join(', ') || 'none'}`];
}

function ruleLine({ when, then, reason, decisive }) {
  const conditions = when.map(({ condition, met }) => `${condition} (${met ? 'yes' : 'no'})`).join(' and ') || 'everyone';
  return `${conditions}: ${reason ? `withhold: ${reason}` : then}${decisive ? ' ← decides' : ''}`;
}

function connectionDetails(connection) {
  const state = [
    connection.userid ?? 'anonymous',
    connection.has_filter ? `a filter with ${connection.filter_values} value${connection.filter_values === 1 ? '' : 's'}` : 'no filter',
    `${connection.queued_bytes} bytes queued`,
    ...(connection.is_replaying ? ['is being sent missed events'] : []),
    ...(connection.token_ended ? ['its token has ended'] : []),
  ];
  const verdict = connection.verdict;
  const events = connection.events.map(eventLine);
  return [
    ...list(`Connection ${connection.connection}`, [state.join(', '), ...(verdict ? [verdict.summary] : [])]),
    ...(verdict ? verdictDetails(verdict) : []),
    ...list('Its last events, the newest first', events.length ? events : ['none']),
  ];
}

function eventLine({ at, action, subject, outcome, reason, basis }) {
  const why = reason ? `: ${reason}` : '';
  return `${timeText(new Date(at))} ${action} ${subject}: ${outcome}${why}${basis === 'evaluated' ? ' (evaluated now)' : ''}`;
}

showKind();
$('explain-kind').addEventListener('change', showKind);
onSubmit('explaining', explain);
