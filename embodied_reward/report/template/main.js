const doc = JSON.parse(document.getElementById('document').textContent);
const SECTIONS = doc.kind === 'reward'
  ? [metricsSection, calibrationSection, viewsSection, stepsSection, worstSection, episodesSection, probesSection, trainingSection]
  : [trainingSection];

document.title = `${doc.title} – report`;
document.getElementById('top').append(...header(doc).filter(Boolean));
const made = SECTIONS.map((build) => build(doc)).filter(Boolean);
document.getElementById('content').replaceChildren(...made);
document.getElementById('nav').append(el('ul', {}, made.map((node) =>
  el('li', {}, el('a', { href: `#${node.id}` }, node.dataset.short)))));
// The target did not exist when the browser looked for it.
if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
