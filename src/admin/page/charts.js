// Charts of the last two minutes: lines on a canvas, and a text alternative for screen readers.
export const WINDOW_MS = 120_000;
const compact = new Intl.NumberFormat('en', { notation: 'compact' });

// The next of 2, 4, 10, 20, 40, 100 …: its half is a round number too.
function axisTop(highest) {
  let top = 2;
  for (let i = 0; top < highest; i++) top *= i % 3 === 1 ? 2.5 : 2;
  return top;
}

// Samples are { at, … } in order. An unknown value is null and interrupts the line, as does a pause longer than `gap`.
export function drawChart({ canvas, name, lines }, samples, now, gap) {
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const seen = samples.filter((point) => point.at >= now - WINDOW_MS);
  const top = axisTop(Math.max(0, ...lines.flatMap(({ key }) => seen.map((point) => point[key] ?? 0))));
  const style = getComputedStyle(canvas);
  const box = { left: 34, right: width - 8, top: 8, bottom: height - 20 };
  const place = {
    x: (at) => box.right - (now - at) / WINDOW_MS * (box.right - box.left),
    y: (value) => box.bottom - value / top * (box.bottom - box.top),
  };
  const ctx = canvas.getContext('2d');
  ctx.scale(ratio, ratio);
  drawAxes(ctx, box, place, { top, now, style });
  ctx.save();
  ctx.beginPath();
  ctx.rect(box.left, 0, width - box.left, height);
  ctx.clip();
  for (const line of lines) drawLine(ctx, place, seen, { ...line, color: style.getPropertyValue(line.color), gap });
  ctx.restore();
  canvas.setAttribute('aria-label', `${name}, last two minutes: ${lines.map((line) => describe(seen, line)).join('; ')}`);
}

function drawAxes(ctx, box, place, { top, now, style }) {
  ctx.font = `11px ${style.fontFamily}`;
  ctx.fillStyle = style.getPropertyValue('--muted');
  ctx.strokeStyle = style.getPropertyValue('--line');
  ctx.textAlign = 'right';
  ctx.textBaseline = 'middle';
  for (const value of [0, top / 2, top]) {
    const y = Math.round(place.y(value)) + 0.5;
    ctx.beginPath();
    ctx.moveTo(box.left, y);
    ctx.lineTo(box.right, y);
    ctx.stroke();
    ctx.fillText(compact.format(value), box.left - 6, y);
  }
  ctx.textBaseline = 'alphabetic';
  for (const [ago, label, align] of [[120, '2 min ago', 'left'], [60, '1 min ago', 'center'], [0, 'now', 'right']]) {
    ctx.textAlign = align;
    ctx.fillText(label, place.x(now - ago * 1000), box.bottom + 15);
  }
}

function drawLine(ctx, place, seen, { key, dash, color, gap }) {
  ctx.strokeStyle = ctx.fillStyle = color;
  ctx.lineWidth = 1.75;
  ctx.lineJoin = 'round';
  ctx.setLineDash(dash);
  ctx.beginPath();
  let before = null;
  for (const point of seen) {
    if (point[key] === null) { before = null; continue; }
    const joined = before && point.at - before.at <= gap;
    ctx[joined ? 'lineTo' : 'moveTo'](place.x(point.at), place.y(point[key]));
    before = point;
  }
  ctx.stroke();
  ctx.setLineDash([]);
  if (!before) return;
  ctx.beginPath();
  ctx.arc(place.x(before.at), place.y(before[key]), 2.5, 0, 2 * Math.PI);
  ctx.fill();
}

function describe(seen, { key, label }) {
  const values = seen.map((point) => point[key]).filter((value) => value !== null);
  if (!values.length) return `${label}: no values yet`;
  return `${label} now ${compact.format(values.at(-1))}, lowest ${compact.format(Math.min(...values))}, highest ${compact.format(Math.max(...values))}`;
}
