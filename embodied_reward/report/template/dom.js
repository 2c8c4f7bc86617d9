// Elements and numbers. Every text enters the page as a text node, never as markup.
const SVG = 'http://www.w3.org/2000/svg';

function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(key, value === true ? '' : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const defined = (value) => typeof value === 'number' && Number.isFinite(value);
const number = (value, digits = 2) =>
  defined(value) ? value.toFixed(digits).replace('-', '−') : 'undefined';
const badge = (state, text) => el('span', { class: `badge ${state}` }, text);

function table(head, rows, attributes = {}) {
  return el('div', { class: 'scroll', tabindex: 0, role: 'region', ...attributes },
    el('table', {},
      el('thead', {}, el('tr', {}, head.map((cell) =>
        cell instanceof Node ? cell : el('th', { scope: 'col' }, cell)))),
      el('tbody', {}, rows)));
}

function section(id, title, short, about, ...children) {
  return el('section', { id, 'data-short': short, 'aria-labelledby': `${id}-title` },
    el('h2', { id: `${id}-title` }, title),
    about ? el('p', { class: 'soft' }, about) : null, children);
}

// Draw now and again whenever the width of `host` changes.
function responsive(host, draw) {
  let width = 0;
  const redraw = () => {
    const now = Math.round(host.clientWidth);
    if (now && now !== width) draw(width = now);
  };
  new ResizeObserver(redraw).observe(host);
  window.addEventListener('beforeprint', redraw);
}
