// Likely causes of a failed connection, each with advice.
import { fetchMetrics, handshakeFailures } from '/metrics.js';

const SLOW_MS = 3_000;
const COUNT_TRIES = 4;
const COUNT_GAP_MS = 500;

// The reasons of h_realtime_handshake_failures_total, explained for the user.
const REASONS = {
  path: 'the path of the URL is not /ws.',
  no_handshake: 'the request was not a WebSocket handshake: a proxy in front may have dropped its Upgrade header.',
  malformed: 'the request was not HTTP: perhaps wss:// to a listener without TLS.',
  tls: 'the TLS handshake failed: the browser does not trust the certificate, or ws:// was used for a listener with TLS.',
  origin: 'the setting “origins” does not list this page.',
  token: 'the token is unknown, expired, or revoked (auth.invalid_token = "reject").',
  full: 'the limit on connections was reached: see limits.connections.',
  per_ip: 'too many connections from this address: see limits.connections_per_ip.',
  overload: 'clients with incomplete input take too much memory: see limits.unfinished_total.',
  unavailable: 'the database is unavailable, so that tokens cannot be checked.',
  no_answer: 'the backend did not check the token in time.',
  timeout: 'the handshake was not complete in time: see timeouts.handshake.',
  too_large: 'the request head was too large: see limits.request_head.',
  shutdown: 'the server was shutting down.',
  proxy_peer: 'the listener takes connections of trusted proxies only: see proxy_protocol.',
  proxy_header: 'the listener expects a PROXY header: see proxy_protocol.',
};

// The handshakes that the server has refused since `before`. They may be those of other clients, so only counts are shown.
export async function refusalsSince(before) {
  if (!before) return [];
  // The browser may know of the failure before the server does, as with a certificate that it does not trust.
  for (let tries = 0; tries < COUNT_TRIES; tries++) {
    if (tries) await new Promise((done) => setTimeout(done, COUNT_GAP_MS));
    try { await fetchMetrics(); } catch { return []; }
    const refusals = increases(before, handshakeFailures());
    if (refusals.length) return refusals;
  }
  return [];
}

function increases(before, now) {
  const causes = [];
  for (const [reason, count] of now) {
    const more = count - (before.get(reason) ?? 0);
    if (more > 0) causes.push({ cause: `The server has just refused ${more === 1 ? 'a handshake' : `${more} handshakes`}, reason “${reason}”:`, advice: REASONS[reason] ?? 'see the server log.' });
  }
  return causes;
}

const isLoopback = (name) => name === 'localhost' || name === '[::1]' || /^127\./.test(name) || name.endsWith('.localhost');
// URL omits the default port of the scheme.
const portOf = (url) => url.port || (url.protocol === 'wss:' ? '443' : '80');

// `place` is the location of the page: { origin, protocol, offered }. `offered` is the URL that the server proposes.
export function likelyCauses(url, place, waitedMs) {
  const offered = new URL(place.offered);
  const causes = [];
  const add = (cause, advice, link) => causes.push({ cause, advice, link });
  if (place.protocol === 'https:' && url.protocol === 'ws:') {
    add('Mixed content:', 'this page came by HTTPS, and browsers forbid ws:// from such a page. Use wss:// to a listener with TLS, or open this page by http://.');
  }
  if (url.pathname !== '/ws') add('Wrong path:', `the API is at /ws, and this URL has ${url.pathname}.`);
  const own = url.hostname === offered.hostname || (isLoopback(url.hostname) && isLoopback(offered.hostname));
  if (own && portOf(url) !== portOf(offered)) add('Wrong port:', `the server proposes ${offered.href}, and this URL has the port ${portOf(url)}.`);
  if (own && url.protocol !== offered.protocol) add('Wrong scheme:', `the server proposes ${offered.href}, and this URL has ${url.protocol}//.`);
  if (url.protocol === 'wss:') {
    add('Certificate not trusted:', 'it may be self-signed, expired, or for another name. Open this address in a new tab and see the browser’s explanation:', `https://${url.host}${url.pathname}`);
  }
  if (waitedMs > SLOW_MS) add('No answer for some seconds:', `a firewall may drop packets to ${url.host}.`);
  else add('Nothing listens there:', `check that the server is running, and its address: “ss -ltn” on its host should list port ${portOf(url)}.`);
  if (isLoopback(url.hostname)) add('Page through a tunnel:', `${url.hostname} is the computer of this browser. With an SSH tunnel to the admin address, the port ${portOf(url)} needs one, too.`);
  add('Refused origin:', `if “origins” is set, it must list ${place.origin}.`);
  if (url.searchParams.has('access_token')) add('Refused token:', 'with auth.invalid_token = "reject", an unknown or expired token is refused. Try to connect without a token.');
  return causes;
}
