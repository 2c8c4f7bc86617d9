// Line charts as inline SVG, drawn at the width they have.
const EDGE = { left: 34, right: 10, top: 8, bottom: 34 };

function scale(from, to, low, high) {
  const span = to - from || 1;
  return (value) => low + ((value - from) / span) * (high - low);
}

// Round steps that divide a range into about `count` parts.
function ticks(low, high, count) {
  const raw = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((k) => k * power).find((k) => k >= raw * 0.999);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; k++) found.push(k * step);
  return found;
}

const label = (value) => {
  const size = Math.abs(value);
  if (size >= 10000) return `${+(value / 1000).toPrecision(4)}k`;
  return String(+value.toPrecision(4)).replace('-', '−');
};

// Points [[x, y], ...] as a path; an undefined y leaves a gap.
function path(points, x, y) {
  let open = false;
  return points.map(([a, b]) => {
    if (!defined(b)) { open = false; return ''; }
    const step = `${open ? 'L' : 'M'}${x(a).toFixed(1)} ${y(b).toFixed(1)}`;
    open = true;
    return step;
  }).join('');
}

function bandPath(points, x, y) {
  const known = points.filter((p) => defined(p[1]) && defined(p[2]));
  if (!known.length) return '';
  const up = known.map((p) => [p[0], p[2]]);
  const down = known.map((p) => [p[0], p[1]]).reverse();
  return `${path(up, x, y)}${path(down, x, y).replace(/^M/, 'L')}Z`;
}

// A frame with axes; returns {root, plot, x, y}.
function frame({ width, height, xs, ys, xLabel, name, xTicks = 5, yTicks = 4 }) {
  const x = scale(xs[0], xs[1], EDGE.left, width - EDGE.right);
  const y = scale(ys[0], ys[1], height - EDGE.bottom, EDGE.top);
  const root = svg('svg', {
    viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': name,
  });
  for (const t of ticks(ys[0], ys[1], yTicks)) {
    root.append(svg('line', { class: 'grid', x1: EDGE.left, x2: width - EDGE.right, y1: y(t), y2: y(t) }),
      svg('text', { x: EDGE.left - 6, y: y(t) + 4, 'text-anchor': 'end' }, label(t)));
  }
  const most = Math.max(2, Math.min(xTicks, Math.floor(width / 75)));
  for (const t of ticks(xs[0], xs[1], most)) {
    root.append(svg('text', { x: x(t), y: height - 19, 'text-anchor': 'middle' }, label(t)));
  }
  if (xLabel) {
    root.append(svg('text', { x: (EDGE.left + width - EDGE.right) / 2, y: height - 4, 'text-anchor': 'middle' }, xLabel));
  }
  const plot = svg('g');
  root.append(plot);
  return { root, plot, x, y };
}

function chart(host, height, options, draw) {
  responsive(host, (width) => {
    const drawn = frame({ width, height, ...options });
    draw(drawn, width);
    host.replaceChildren(drawn.root);
  });
  return host;
}

function sparkline(values) {
  const x = scale(0, Math.max(values.length - 1, 1), 1, 83);
  const y = scale(0, 1, 20, 2);
  return svg('svg', { class: 'spark', viewBox: '0 0 84 22', 'aria-hidden': 'true' },
    svg('line', { class: 'grid', x1: 0, x2: 84, y1: 20, y2: 20 }),
    svg('path', { class: 'curve s-potential', d: path(values.map((v, t) => [t, v]), x, y) }));
}

const swatch = (kind) => svg('svg', { viewBox: '0 0 20 8', 'aria-hidden': 'true' },
  svg('line', { class: `curve s-${kind}`, x1: 0, x2: 20, y1: 4, y2: 4 }));
