// The sections of the page, each a function of the document.

function header(doc) {
  const { facts, command, episodes, caution } = doc.headline;
  const rows = Object.entries(facts).flatMap(([name, value]) => [el('dt', {}, name), el('dd', {}, value)]);
  return [
    el('p', { class: 'kicker' }, doc.kind === 'reward' ? 'Reward model report' : 'Policy training report'),
    el('h1', {}, doc.title),
    doc.metrics ? el('p', { class: 'lead' }, doc.metrics.verdict.text, ' ', probeSummary(doc)) : null,
    doc.metrics ? tiles(doc) : null,
    episodes ? el('p', {}, episodes) : null,
    caution ? el('p', { class: 'note' }, caution) : null,
    el('details', { open: true }, el('summary', {}, 'What was measured, and how to measure it again'),
      el('dl', { class: 'facts' }, rows), el('pre', {}, command)),
  ];
}

function probeSummary(doc) {
  if (!doc.probes.length) return 'No probes were run.';
  const count = (state) => doc.probes.filter((p) => p.verdict === state).length;
  const said = ['fail', 'warn', 'pass', 'undefined'].filter(count).map((s) => `${count(s)} ${s}`);
  return `Reward-hacking probes: ${said.join(', ')}.`;
}

function tiles(doc) {
  const wanted = ['spearman', 'mae', 'success_auc', 'voc_min'];
  const found = wanted.map((key) => doc.metrics.rows.find((row) => row.key === key)).filter(Boolean);
  return el('div', { class: 'tiles' }, found.map((row) => {
    const cell = row.cells[0];
    return el('div', { class: 'tile' }, el('span', { class: 'name' }, row.name),
      el('b', { class: defined(cell.value) ? '' : 'undefined' }, number(cell.value)),
      el('span', {}, defined(cell.value) ? interval(cell) : cell.reason),
      defined(cell.value) ? el('span', {}, row.verdict.text) : null);
  }));
}

const interval = (cell) =>
  defined(cell.low) ? `${number(cell.low)} to ${number(cell.high)}` : 'no interval';

const WORDS = { win: 'ahead', close: 'ahead, unclear', tie: 'tie', lose: 'baseline wins', undefined: 'undefined' };

function metricsSection(doc) {
  const rows = doc.metrics.rows;
  const head = rows.filter((row) => row.headline);
  const rest = rows.filter((row) => !row.headline);
  return section('metrics', 'Metrics beside trivial baselines', 'Metrics',
    'A filled dot is the model with its 95 % bootstrap interval over episodes; open dots are ' +
    'predictors that know nothing. A model that does not beat them has learned nothing.',
    el('div', { class: 'strips' }, head.map((row) => strip(row, doc.metrics.columns))),
    metricTable(head, doc.metrics.columns, 'Headline metrics'),
    el('p', { class: 'small soft' }, '* best of the row · † time order by definition, not compared · ' +
      'small numbers: 95 % interval · undefined: touch or hover for the reason'),
    el('details', {}, el('summary', {}, `${rest.length} more metrics`),
      metricTable(rest, doc.metrics.columns, 'Further metrics')),
    readings(doc));
}

function strip(row, columns) {
  const host = el('div');
  const cell = row.cells[0];
  responsive(host, (width) => {
    const x = scale(row.scale[0], row.scale[1], 8, width - 8);
    const inside = (v) => x(Math.max(row.scale[0], Math.min(row.scale[1], v)));
    const said = columns.map((name, k) => `${name} ${number(row.cells[k].value)}`).join(', ');
    const root = svg('svg', { viewBox: `0 0 ${width} 34`, role: 'img', 'aria-label': `${row.name}: ${said}` },
      svg('line', { class: 'grid', x1: 8, x2: width - 8, y1: 13, y2: 13 }));
    for (const t of [row.scale[0], (row.scale[0] + row.scale[1]) / 2, row.scale[1]]) {
      root.append(svg('text', { x: x(t), y: 32, 'text-anchor': 'middle' }, label(t)));
    }
    row.cells.slice(1).forEach((c, k) => {
      if (defined(c.value) && !c.by_definition) {
        root.append(svg('circle', { class: 'rival', cx: inside(c.value), cy: 13, r: 4 },
          svg('title', {}, `${columns[k + 1]} ${number(c.value)}`)));
      }
    });
    if (defined(cell.low)) {
      root.append(svg('line', { class: 'interval', x1: inside(cell.low), x2: inside(cell.high), y1: 13, y2: 13 }));
    }
    if (defined(cell.value)) {
      root.append(svg('circle', { class: 'f-potential', cx: inside(cell.value), cy: 13, r: 5.5 },
        svg('title', {}, `model ${number(cell.value)}`)));
    }
    host.replaceChildren(root);
  });
  const said = row.verdict.state === 'undefined' && cell.reason ? cell.reason : row.verdict.text;
  return el('div', { class: 'strip' },
    el('div', {}, el('div', { class: 'name' }, row.name), el('div', { class: 'small soft' }, row.about)),
    host, el('div', { class: 'said' }, badge(row.verdict.state, WORDS[row.verdict.state]), said));
}

function metricTable(rows, columns, name) {
  return table([el('th', { scope: 'col' }, 'metric'), ...columns.map((c) => el('th', { scope: 'col' }, c))],
    rows.map((row) => el('tr', { 'data-metric': row.key },
      el('th', { scope: 'row', title: row.about }, row.name),
      row.cells.map((cell, k) => el('td', { class: `${k ? '' : 'model'}${cell.best ? ' best' : ''}` },
        value(cell), cell.best ? el('span', { class: 'mark' }, '*') : null, cell.by_definition ? '†' : null,
        defined(cell.low) ? el('span', { class: 'ci' }, interval(cell)) : null)))),
    { 'aria-label': name });
}

const value = (cell) => defined(cell.value) ? number(cell.value)
  : el('abbr', { title: cell.reason, tabindex: 0 }, 'undefined');

const READ = { mae: 'MAE', spearman: 'Spearman', spearman_episode: 'Spearman per episode', success_auc_potential: 'AUC of progress', success_gap: 'success gap' };

function readings(doc) {
  if (!doc.readings.length) return null;
  return el('details', {}, el('summary', {}, 'The model’s readings and single views'),
    table(['progress read as', ...Object.values(READ)], doc.readings.map((row) => el('tr', {},
      el('th', { scope: 'row' }, row.name),
      Object.keys(READ).map((key) => el('td', {}, number(row[key]))))), { 'aria-label': 'Readings' }));
}

function calibrationSection(doc) {
  return section('calibration', 'Calibration and uncertainty', 'Calibration',
    'Left and middle: does a number mean what it says? Dots on the diagonal do; their area is the ' +
    'share of frames. Right: dropping the frames the model is unsure of should lower the error.',
    el('div', { class: 'figures' },
      reliability('Success probability', doc.calibration.success, 'share done'),
      reliability('Progress', doc.calibration.progress, 'true progress'),
      riskCoverage(doc.risk)));
}

function reliability(name, data, outcome) {
  if (!data.bins) return missing(name, data.reason);
  const host = chart(el('div', { class: 'chart' }), 240, {
    xs: [0, 1], ys: [0, 1], xLabel: 'predicted', name: `Reliability of ${name.toLowerCase()}`,
  }, ({ plot, x, y }) => {
    plot.append(svg('line', { class: 'line', x1: x(0), y1: y(0), x2: x(1), y2: y(1) }),
      svg('text', { x: x(0) + 5, y: y(1) + 9 }, outcome),
      svg('path', { class: 'curve s-potential', d: path(data.bins, x, y), opacity: 0.5 }));
    for (const [p, o, n] of data.bins) {
      plot.append(svg('circle', {
        class: 'f-potential', cx: x(p), cy: y(o), r: 2.5 + 9 * Math.sqrt(n / data.frames), 'fill-opacity': 0.75,
      }, svg('title', {}, `${n} frames: predicted ${number(p)}, observed ${number(o)}`)));
    }
  });
  return el('figure', {}, host, el('figcaption', {}, el('b', {}, name),
    `. Expected calibration error ${number(data.ece)}; slope ${number(data.slope)} (1 is calibrated, ` +
    `below 1 too extreme); ${data.frames} frames, mean ${outcome} ${number(data.base)}.`));
}

function riskCoverage(risk) {
  if (!risk.curves) return missing('Risk and coverage', risk.reason);
  const top = Math.max(risk.random, ...risk.curves.model.map((p) => p[1])) * 1.1 || 1;
  const host = chart(el('div', { class: 'chart' }), 240, {
    xs: [0, 1], ys: [0, top], xLabel: 'share of frames kept', name: 'Risk against coverage',
  }, ({ plot, x, y }) => {
    plot.append(svg('line', { class: 'line', x1: x(0), x2: x(1), y1: y(risk.random), y2: y(risk.random) }),
      svg('text', { x: x(0) + 5, y: y(risk.random) - 5 }, 'random order'),
      svg('path', { class: 'curve s-soft', d: path(risk.curves.oracle, x, y) }),
      svg('path', { class: 'curve s-potential', d: path(risk.curves.model, x, y) }));
  });
  const warn = risk.reason ? ` Note: ${risk.reason}.` : '';
  return el('figure', {}, host, el('figcaption', {}, el('b', {}, 'Mean error of the frames kept'),
    `, most certain first (solid), by true error (dashed). Area ${number(risk.aurc, 3)}, random ` +
    `${number(risk.random, 3)}, oracle ${number(risk.oracle, 3)}; excess ${number(risk.excess)} ` +
    `(0 is the oracle, 1 is no better than random).${warn}`));
}

const missing = (name, reason) => el('figure', {}, el('figcaption', {}, el('b', {}, name), `: undefined, because ${reason}.`));

const DROP = READ;

function viewsSection(doc) {
  const [full] = doc.drops;
  return section('views', 'With one camera missing', 'Missing camera',
    doc.drops.length > 1
      ? 'The same episodes without one of the views. A model that leans on a single camera shows it here.'
      : 'The model has one view, so none can be missing.',
    table(['missing view', ...Object.values(DROP)], doc.drops.map((row) => el('tr', {},
      el('th', { scope: 'row' }, row.view || 'none'),
      row.reason ? el('td', { class: 'left soft', colspan: Object.keys(DROP).length }, `undefined: ${row.reason}`)
        : Object.keys(DROP).map((key) => el('td', {}, number(row[key]),
          row === full || !defined(row[key]) || !defined(full[key]) ? null
            : el('span', { class: 'ci' }, change(row[key] - full[key])))))),
    { 'aria-label': 'Metrics with one view missing' }),
    el('p', { class: 'soft' }, 'Progress also moves when nothing happens: its standard deviation under ',
      Object.entries(doc.stability).map(([name, v]) => `${name} is ${number(v, 3)}`).join(', under '), '.'));
}

const change = (by) => `${by >= 0 ? '+' : '−'}${Math.abs(by).toFixed(2)}`;

const ORDERS = { error: 'largest error', rank: 'wrong order', outcome: 'wrong outcome' };

function worstSection(doc) {
  const byId = new Map(doc.episodes.map((row) => [row.id, row]));
  const body = el('div', { id: 'worst-list' });
  const pick = (order) => {
    const ids = doc.worst[order];
    body.replaceChildren(ids.length
      ? table(['episode', 'outcome', 'MAE', 'Spearman', 'final progress', 'highest success', 'progress'],
        ids.map((id) => worstRow(byId.get(id))), { 'aria-label': `Episodes, ${ORDERS[order]} first` })
      : el('p', { class: 'soft' }, order === 'outcome'
        ? `No episode: success fires (at ${number(doc.threshold)}) where it should and nowhere else.`
        : 'Undefined: the dataset has no true progress, or it does not move.'));
  };
  const choices = Object.keys(ORDERS).map((order, k) => {
    const input = el('input', { type: 'radio', name: 'order', value: order, checked: k === 0 });
    input.addEventListener('change', () => pick(order));
    return el('label', {}, input, ORDERS[order]);
  });
  pick('error');
  return section('worst', 'Worst first', 'Worst first',
    'Where to look: the largest mean error, the lowest rank correlation with true progress, and ' +
    'episodes whose outcome the success probability gets wrong.',
    el('fieldset', { class: 'orders' }, el('legend', {}, 'Sort by'), choices), body);
}

function worstRow(row) {
  const name = `Episode ${row.index}`;
  return el('tr', { 'data-episode': row.id },
    el('th', { scope: 'row' }, row.frames ? el('a', { href: `#${row.id}` }, name) : `${name} (no pictures)`),
    el('td', {}, badge(row.outcome, row.outcome), row.mistake ? ' ' : null,
      row.mistake ? badge('mistake', row.mistake) : null),
    [row.mae, row.spearman, row.final_potential, row.top_success].map((v) => el('td', {}, number(v))),
    el('td', {}, sparkline(row.spark)));
}

function episodesSection(doc) {
  const shown = doc.episodes.filter((row) => row.frames);
  return section('episodes', 'Episodes', 'Episodes',
    `${shown.length} of ${doc.episodes.length} episodes, the worst and the best among them. Move the ` +
    'slider (or press the arrow keys on it), or touch a curve or a film strip. The band is ± one ' +
    'standard deviation; green shade: the task is done.',
    shown.map(episodeCard));
}

function probesSection(doc) {
  if (!doc.probes.length) return section('probes', 'Reward-hacking probes', 'Probes', 'No probes were run.');
  const rows = doc.probes.map((p) => el('tr', { 'data-probe': p.name },
    el('th', { scope: 'row' }, el('a', { href: `#probe-${p.name}` }, p.title)),
    el('td', { class: 'verdict' }, badge(p.verdict, p.verdict)),
    el('td', { class: 'left' }, p.got)));
  return section('probes', 'Reward-hacking probes', 'Probes',
    'Edits that must not raise a reward. A passed probe is no proof of safety; a failed one is proof ' +
    'of a hole that a policy can find.',
    el('div', { class: 'probes' }, table(['probe', 'verdict', el('th', { class: 'left', scope: 'col' }, 'what came out')],
      rows, { 'aria-label': 'Probes' })),
    doc.probes.map(probeCard));
}

function probeCard(probe) {
  const measures = probe.measures.flatMap((m) => [
    el('div', {}, badge(m.verdict, m.verdict), ` ${m.name}: `, el('b', {}, m.value),
      el('span', { class: 'soft' }, ` (${m.limits})`))]);
  return el('article', { class: 'card probe', id: `probe-${probe.name}` },
    el('div', { class: 'head' }, el('h3', {}, probe.title), badge(probe.verdict, probe.verdict),
      el('span', { class: 'soft' }, `${probe.queries} queries`)),
    el('dl', {}, el('dt', {}, 'Done'), el('dd', {}, probe.done), el('dt', {}, 'Expected'),
      el('dd', {}, probe.expected), el('dt', {}, 'Got'), el('dd', {}, probe.got),
      el('dt', {}, 'Judged'), el('dd', {}, measures)),
    probe.shown.length ? el('div', { class: 'shots' }, probe.shown.map(shot)) : null);
}

function shot(shown) {
  return el('figure', {},
    el('div', { class: 'pair' }, shown.pictures.map((p) => el('img', { src: p.uri, alt: `view ${p.view}` }))),
    el('figcaption', {}, shown.caption));
}

function stepsSection(doc) {
  if (!doc.steps) return null;
  return section('steps', 'Discovered steps', 'Steps',
    'Every demonstration of the fit: the middle frame of each step that was found, and the potential over time.',
    el('img', { class: 'wide', src: doc.steps, alt: 'Steps of every demonstration, and its potential over time' }));
}

function trainingSection(doc) {
  if (!doc.training.length) return null;
  return section('training', 'Learning curves', 'Learning', 'From the run’s metrics.jsonl.',
    el('div', { class: 'learn' }, doc.training.slice(0, 9).map(learningCurve)),
    doc.training.length > 9 ? el('details', {}, el('summary', {}, `${doc.training.length - 9} more curves`),
      el('div', { class: 'learn' }, doc.training.slice(9).map(learningCurve))) : null);
}

function learningCurve(curve) {
  const all = [...curve.points.map((p) => p[1]), ...curve.band.flatMap((p) => [p[1], p[2]])];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const room = (high - low) * 0.08 || Math.abs(high) * 0.1 || 0.5;
  const unit = /rate|success/.test(curve.key) && low >= 0 && high <= 1;
  const steps = curve.points.map((p) => p[0]);
  const host = chart(el('div', { class: 'chart' }), 150, {
    xs: [Math.min(...steps), Math.max(...steps)], ys: unit ? [0, 1] : [low - room, high + room],
    name: `${curve.title} over training steps`, xLabel: 'step', xTicks: 4, yTicks: 3,
  }, ({ plot, x, y }) => {
    plot.append(svg('path', { class: 'band', d: bandPath(curve.band, x, y) }),
      svg('path', { class: 'curve s-potential', d: path(curve.points, x, y) }));
    if (curve.points.length < 30) {
      plot.append(...curve.points.map(([a, b]) => svg('circle', { class: 'f-potential', cx: x(a), cy: y(b), r: 2.5 })));
    }
  });
  const last = curve.points[curve.points.length - 1];
  return el('figure', {}, el('h3', { class: 'small' }, curve.title), host,
    el('figcaption', {}, `last ${label(last[1])} at step ${label(last[0])}`));
}
