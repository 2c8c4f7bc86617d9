// The sitting: ask, take the answer, save it, go on.

import { clip, keep } from './clips.js';
import { Player } from './player.js';

const $ = (id) => document.getElementById(id);
const SAID = { left: 'Left', right: 'Right', same: 'Same', skip: 'Skipped' };

const player = new Player(showTime);
let state = null; // as the server sent it
let shown = null; // id of the question on the screen, once its clips play
let since = 0; // when it appeared [ms]
let busy = false;
const taken = []; // durations of the answers of this sitting [s]

// --- server ---

async function send(path, message) {
  const reply = await fetch(path, message === undefined ? {} : {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(message),
  });
  const body = await reply.json();
  // 409: this question was answered elsewhere, and here is the current one.
  if (!reply.ok && reply.status !== 409) throw new Error(body.error);
  return { state: body, taken: reply.ok };
}

async function attempt(work) {
  try {
    const result = await work();
    $('alarm').hidden = true;
    return result;
  } catch (error) {
    const lost = error instanceof TypeError; // fetch could not reach the server
    alarm(lost
      ? 'The program that saves your answers does not reply. All answers so far are saved; start it again and open the address it shows.'
      : `${error.message} Nothing else was lost; try again.`);
    return null;
  }
}

// --- questions ---

async function ask(next) {
  state = next;
  showProgress();
  const query = state.query;
  $('over').hidden = query !== null;
  $('stage').hidden = $('controls').hidden = query === null;
  document.body.dataset.query = query ? query.id : '';
  if (!query) return showOver();
  const names = query.anchor === null
    ? [['left', query.left], ['right', query.right]]
    : [['left', query.left], ['anchor', query.anchor], ['right', query.right]];
  $('question').textContent = query.anchor === null
    ? 'Which one does it better?' : 'Which side is closer to the one in the middle?';
  $('task').textContent = query.task;
  shown = null;
  enable(false);
  const slow = setTimeout(() => $('stage').replaceChildren(waiting()), 150);
  const films = await attempt(() => Promise.all(names.map(([, episode]) => clip(episode))));
  clearTimeout(slow);
  if (films === null || state !== next) return undefined; // or another question came meanwhile
  const shots = names.map(([side, episode], i) => ({ panel: panelOf(side, episode), film: films[i] }));
  $('stage').replaceChildren(...shots.map((s) => s.panel));
  player.show(shots);
  showViews(films[0].views);
  [shown, since] = [query.id, performance.now()];
  enable(true);
  keep([...episodesOf(query), ...state.next]);
  // One after the other, so that what is on the screen keeps the machine to itself.
  for (const episode of state.next) await clip(episode).catch(() => {});
  return undefined;
}

function episodesOf(query) {
  return [query.left, query.right, ...(query.anchor === null ? [] : [query.anchor])];
}

async function answer(choice) {
  if (busy || shown === null) return;
  busy = true;
  const seconds = (performance.now() - since) / 1000;
  document.querySelector(`.panel.${choice}`)?.classList.add('chosen');
  const result = await attempt(() => send('answer', { id: shown, choice, seconds }));
  document.querySelector('.panel.chosen')?.classList.remove('chosen');
  busy = false;
  if (result === null) return;
  if (result.taken) taken.push(seconds);
  toast(result.taken ? `${SAID[choice]} · saved` : 'Already answered in another window');
  await ask(result.state);
}

async function undo() {
  if (busy || !state?.undo) return;
  busy = true;
  const result = await attempt(() => send('undo', {}));
  busy = false;
  if (result === null) return;
  taken.pop();
  toast('Taken back: answer again');
  await ask(result.state);
}

async function finish() {
  const result = await attempt(() => send('finish', {}));
  if (result === null) return;
  $('finish').hidden = $('controls').hidden = true;
  $('over-text').textContent = `Saved in ${state.path}. You can close this page.`;
}

// --- what is on the screen ---

function panelOf(side, episode) {
  const panel = document.createElement(side === 'anchor' ? 'div' : 'button');
  panel.className = `panel ${side}`;
  panel.dataset.episode = episode;
  const name = document.createElement('span');
  name.className = 'name';
  const words = { left: '← Left', right: 'Right →', anchor: 'Compare with this' };
  const [title, end] = [document.createElement('span'), document.createElement('span')];
  title.textContent = words[side];
  end.className = 'end';
  end.textContent = 'ended';
  name.append(title, end);
  const mat = document.createElement('span');
  mat.className = 'mat';
  panel.append(name, mat);
  if (side !== 'anchor') {
    panel.type = 'button';
    panel.setAttribute('aria-label', side === 'left' ? 'Left' : 'Right');
    panel.addEventListener('click', () => answer(side));
  }
  return panel;
}

function waiting() {
  const text = document.createElement('p');
  text.className = 'waiting';
  text.textContent = 'Loading the clips…';
  return text;
}

function showProgress() {
  $('answered').textContent = state.answered;
  $('target').textContent = state.target;
  $('bar').max = Math.max(1, state.target);
  $('bar').value = Math.min(state.answered, state.target);
  $('left').textContent = timeLeft();
  $('undo').disabled = !state.undo;
  document.title = `${state.answered} of ${state.target} · preferences`;
}

function timeLeft() {
  if (taken.length < 5) return state.skipped ? ` · ${state.skipped} skipped` : '';
  const recent = taken.slice(-20).sort((a, b) => a - b);
  const minutes = ((state.target - state.answered) * recent[recent.length >> 1]) / 60;
  return minutes < 1 ? ' · under a minute left' : ` · about ${Math.round(minutes)} min left`;
}

function showOver() {
  player.show([]);
  $('question').textContent = 'Thank you';
  $('task').textContent = '';
  $('over-title').textContent = state.exhausted
    ? 'Every question has been asked.' : `All ${state.answered} answered and saved.`;
  $('over-text').textContent = `They are in ${state.path}. Press Z to take the last one back.`;
}

function showViews(views) {
  if (views.length < 2) return;
  const choices = [['All', null], ...views.map((view, i) => [view.name, i])];
  $('views').replaceChildren(...choices.map(([label, camera]) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = label;
    button.setAttribute('aria-pressed', player.camera === camera);
    button.addEventListener('click', () => look(camera));
    return button;
  }));
}

function look(camera) {
  player.look(camera);
  [...$('views').children].forEach((button, i) =>
    button.setAttribute('aria-pressed', (i === 0 ? null : i - 1) === camera));
}

function nextCamera() {
  const count = $('views').children.length - 1;
  if (count < 2) return;
  const next = player.camera === null ? 0 : player.camera + 1;
  look(next < count ? next : null);
}

function showTime() {
  const total = player.seconds;
  const time = Math.min(player.time, total);
  $('time').value = total > 0 ? Math.round((time / total) * 1000) : 0;
  $('time').setAttribute('aria-valuetext', `${time.toFixed(1)} of ${total.toFixed(1)} seconds`);
  $('clock').textContent = `${time.toFixed(1)} / ${total.toFixed(1)} s`;
  $('play').textContent = player.playing ? '❚❚' : '▶';
  $('play').setAttribute('aria-label', player.playing ? 'Pause' : 'Play');
  $('speed').textContent = `${player.speed}×`;
}

function enable(on) {
  for (const id of ['left-better', 'same', 'right-better', 'skip']) $(id).disabled = !on;
}

function alarm(text) {
  $('alarm').textContent = text;
  $('alarm').hidden = false;
}

function toast(text) {
  $('toast').textContent = text;
  $('toast').classList.add('shown');
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => $('toast').classList.remove('shown'), 1400);
}

// --- mouse and keyboard ---

function playOrPause() {
  player.playing = !player.playing;
  if (player.playing && player.time >= player.seconds) player.time = 0;
  showTime();
}

function restart() {
  player.playing = true;
  player.seek(0);
}

const KEYS = {
  ArrowLeft: () => answer('left'), ArrowRight: () => answer('right'),
  ArrowDown: () => answer('same'), ArrowUp: () => answer('skip'), x: () => answer('skip'),
  z: undo, Backspace: undo, ' ': playOrPause, r: restart, v: nextCamera,
  '[': () => player.faster(-1), ']': () => player.faster(1),
  ',': () => player.step(-1), '.': () => player.step(1), '?': () => $('help').showModal(),
};
const REPEATING = new Set([',', '.']); // held down, these go on; an answer never does

function onKey(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const undoing = key === 'z' && (event.ctrlKey || event.metaKey);
  if ((event.ctrlKey || event.metaKey || event.altKey) && !undoing) return;
  if ($('help').open || !(key in KEYS)) return;
  // Who walks the page by Tab expects Space to press, and arrows to move the slider.
  const own = event.target.closest?.('button, input');
  const takes = own?.matches('input') ? key.startsWith('Arrow') : key === ' ';
  if (own?.matches(':focus-visible') && takes) return;
  event.preventDefault();
  if (!event.repeat || REPEATING.has(key)) KEYS[key]();
}

function wire() {
  const clicks = {
    'left-better': () => answer('left'), 'right-better': () => answer('right'),
    same: () => answer('same'), skip: () => answer('skip'), undo, finish, play: playOrPause,
    speed: () => player.faster(player.speed === 8 ? -5 : 1), 'help-open': () => $('help').showModal(),
  };
  for (const [id, work] of Object.entries(clicks)) $(id).addEventListener('click', work);
  $('time').addEventListener('input', () => {
    player.playing = false;
    player.seek(($('time').value / 1000) * player.seconds);
  });
  document.addEventListener('keydown', onKey);
  // After a click the keys belong to the page again, not to the button or the slider.
  document.addEventListener('pointerup', () => setTimeout(() => {
    if (!$('help').open) document.activeElement?.blur();
  }));
}

wire();
const first = await attempt(() => send('state'));
if (first) await ask(first.state);
