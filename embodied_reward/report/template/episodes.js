// One episode: current pictures, curves with a cursor, a slider, film strips.
const THUMB = 16; // width of the slider's handle [px], as in page.css
const CURVES = 220; // height of the curves [px]

function episodeCard(row) {
  const card = el('article', { class: 'card episode', id: row.id, 'aria-label': `Episode ${row.index}` },
    el('div', { class: 'head' },
      el('h3', {}, `Episode ${row.index}`),
      badge(row.outcome, row.outcome),
      row.mistake ? badge('mistake', row.mistake) : null,
      el('span', { class: 'soft' },
        `${row.length} frames at ${label(row.fps)} Hz · MAE ${number(row.mae)} · Spearman ${number(row.spearman)}`),
      row.failed_frames ? badge('fail', `${row.failed_frames} frames not scored`) : null));
  if (row.frames) card.append(player(row));
  return card;
}

function series(row) {
  const lines = [
    { name: 'progress', kind: 'potential', values: row.curves.potential },
    { name: 'success', kind: 'success', values: row.curves.success },
  ];
  if (row.curves.truth) lines.push({ name: 'true progress', kind: 'truth', values: row.curves.truth });
  Object.entries(row.views).forEach(([view, values], k) =>
    lines.push({ name: `${view} alone`, kind: `v${k % 4}`, values, view }));
  return lines;
}

function player(row) {
  const lines = series(row);
  const readout = el('ul', { class: 'readout', 'aria-hidden': 'true' });
  const values = [...lines, { name: '± uncertainty', kind: null, values: row.curves.uncertainty }];
  const numbers = values.map((line) => {
    const value = el('b', { 'data-reads': line.name });
    readout.append(el('li', {}, line.kind ? swatch(line.kind) : null, `${line.name} `, value));
    return value;
  });
  const slider = el('input', {
    type: 'range', min: 0, max: row.frames.length - 1, step: 1, value: 0,
    'aria-label': `Frame of episode ${row.index}`,
  });
  const host = el('div', { class: 'chart' });
  const state = { at: 0, cursor: null, place: null };
  const sheets = row.sheets.map((sheet) => bigView(row, sheet, lines));
  const films = row.sheets.map((sheet) => filmStrip(row, sheet, (k) => go(k)));

  function go(k) {
    state.at = Math.max(0, Math.min(k, row.frames.length - 1));
    slider.value = state.at;
    show();
  }
  function show() {
    const t = row.frames[state.at];
    values.forEach((line, k) => { numbers[k].textContent = number(line.values[t]); });
    sheets.forEach((sheet) => sheet.show(state.at, t));
    slider.setAttribute('aria-valuetext',
      `frame ${t} of ${row.length - 1}, ${number(t / row.fps)} seconds, progress ` +
      `${number(row.curves.potential[t])}, success ${number(row.curves.success[t])}`);
    if (state.cursor) {
      state.cursor.setAttribute('x1', state.place(t / row.fps));
      state.cursor.setAttribute('x2', state.place(t / row.fps));
    }
  }
  slider.addEventListener('input', () => go(Number(slider.value)));
  drawCurves(host, row, lines, state, show, (t) => go(nearest(row.frames, t)));
  const strip = el('div', { class: 'film' }, films.map((film) => film.node));
  responsive(strip, (width) => {
    const plot = width - EDGE.left - EDGE.right;
    slider.style.marginLeft = `${EDGE.left - THUMB / 2}px`;
    slider.style.width = `${plot + THUMB}px`;
    strip.style.setProperty('padding', `0 ${EDGE.right}px 0 ${EDGE.left}px`);
    films.forEach((film) => film.draw(plot));
  });
  show();
  return el('div', { class: 'player' },
    el('div', { class: 'views' }, sheets.map((sheet) => sheet.node)),
    el('div', {}, readout, host, slider, strip));
}

function drawCurves(host, row, lines, state, show, seek) {
  const seconds = (row.length - 1) / row.fps;
  chart(host, CURVES, {
    xs: [0, seconds], ys: [0, 1], xLabel: 'time [s]',
    name: `Progress, success and single views of episode ${row.index} over time`,
  }, ({ root, plot, x, y }, width) => {
    for (const [from, to] of row.done) {
      const left = x(from / row.fps);
      plot.append(svg('rect', {
        class: 'done', x: left, y: EDGE.top, height: CURVES - EDGE.top - EDGE.bottom,
        width: Math.max(x(to / row.fps) - left, 2),
      }, svg('title', {}, 'the task is done')));
    }
    const around = row.curves.potential.map((v, t) => {
      const s = row.curves.uncertainty[t];
      return [t / row.fps, Math.max(v - s, 0), Math.min(v + s, 1)];
    });
    plot.append(svg('path', { class: 'band', d: bandPath(around, x, y) }));
    for (const line of [...lines].reverse()) {
      const points = line.values.map((v, t) => [t / row.fps, v]);
      plot.append(svg('path', { class: `curve s-${line.kind}`, d: path(points, x, y) }));
    }
    state.cursor = svg('line', { class: 'cursor', y1: EDGE.top, y2: CURVES - EDGE.bottom });
    state.place = x;
    root.append(state.cursor);
    root.addEventListener('click', (event) => {
      const at = event.clientX - root.getBoundingClientRect().left - EDGE.left;
      seek((at / (width - EDGE.left - EDGE.right)) * (row.length - 1));
    });
    show();
  });
}

function nearest(frames, t) {
  return frames.reduce((best, f, k) => (Math.abs(f - t) < Math.abs(frames[best] - t) ? k : best), 0);
}

function sheetImage(sheet, ready) {
  const image = new Image();
  image.onload = ready;
  image.src = sheet.uri;
  return image;
}

function paint(context, image, row, sheet, k, x, y, width, height) {
  context.drawImage(image, (k % row.columns) * sheet.width, Math.floor(k / row.columns) * sheet.height,
    sheet.width, sheet.height, x, y, width, height);
}

function bigView(row, sheet, lines) {
  const zoom = Math.max(1, Math.round(224 / sheet.width));
  const canvas = el('canvas', {
    width: sheet.width * zoom, height: sheet.height * zoom, role: 'img', 'data-view': sheet.view,
    'aria-label': `View ${sheet.view} at the chosen frame`,
  });
  const frame = el('span', { 'data-frame': '' });
  let at = 0;
  const draw = () => {
    const context = canvas.getContext('2d');
    context.imageSmoothingEnabled = false;
    paint(context, image, row, sheet, at, 0, 0, canvas.width, canvas.height);
  };
  const image = sheetImage(sheet, draw);
  const node = el('figure', {}, canvas, el('figcaption', {}, el('span', {}, sheet.view), frame));
  const show = (k, t) => {
    at = k;
    frame.textContent = `frame ${t}`;
    if (image.complete && image.naturalWidth) draw();
  };
  return { node, show };
}

// As many frames as fit, on the time axis of the chart above.
function filmStrip(row, sheet, seek) {
  const canvas = el('canvas', { role: 'img', 'aria-label': `Film strip of view ${sheet.view}` });
  let plot = 0;
  const draw = (width = plot) => {
    plot = width;
    if (!plot || !image.complete || !image.naturalWidth) return;
    const count = Math.max(3, Math.min(12, Math.floor(plot / 58), row.frames.length));
    const sharp = Math.min(window.devicePixelRatio || 1, 2);
    const each = (plot / count) * sharp;
    const tall = (each * sheet.height) / sheet.width;
    canvas.width = Math.round(plot * sharp);
    canvas.height = Math.round(tall);
    const context = canvas.getContext('2d');
    context.imageSmoothingEnabled = each < sheet.width;
    for (let k = 0; k < count; k++) {
      const time = ((k + 0.5) / count) * (row.length - 1);
      paint(context, image, row, sheet, nearest(row.frames, time), k * each, 0, each - 2, tall);
    }
  };
  const image = sheetImage(sheet, () => draw());
  canvas.addEventListener('click', (event) => {
    const share = event.offsetX / canvas.clientWidth;
    seek(nearest(row.frames, share * (row.length - 1)));
  });
  return { node: el('div', {}, el('div', { class: 'small' }, sheet.view), canvas), draw };
}
