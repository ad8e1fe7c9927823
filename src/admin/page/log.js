// The frame log: what the connection sends and receives, one row a frame.
import { $, element, onClick, parseJson, timeText } from '/common.js';

const MAX_FRAMES = 500;
const LINE_CHARS = 600;
const ANNOUNCE_GAP_MS = 10_000;

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

export function logFrame(direction, raw) {
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

export function logNote(text) {
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
