// Plays all clips from one clock, so that they cannot drift apart.

import { draw } from './clips.js';
import { boxes } from './layout.js';

const PAUSE = 0.6; // between the end of the longest clip and the next round [s]
const SPEEDS = [0.25, 0.5, 1, 2, 4, 8];

export class Player {
  constructor(onFrame) {
    this.onFrame = onFrame;
    this.shots = []; // {panel, film, tiles: [{view, canvas, camera}]}
    this.time = 0;
    this.playing = true;
    this.speed = 1;
    this.camera = null; // index of the only camera on the screen; null shows all
    this.last = null;
    const tick = (now) => {
      this.advance(this.last === null ? 0 : (now - this.last) / 1000);
      this.last = now;
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    new ResizeObserver(() => this.arrange()).observe(document.getElementById('stage'));
  }

  get seconds() {
    return Math.max(0, ...this.shots.map((s) => s.film.seconds));
  }

  show(shots) {
    this.shots = shots.map(({ panel, film }) => ({ panel, film, tiles: tilesOf(panel, film) }));
    this.time = 0;
    this.playing = true;
    this.arrange();
  }

  advance(passed) {
    if (!this.playing || !this.shots.length) return;
    // A page in the background gets no frames; do not leap when it comes back.
    this.time += Math.min(passed, 0.25) * this.speed;
    if (this.time > this.seconds + PAUSE * this.speed) this.time = 0;
    this.draw();
  }

  seek(time) {
    this.time = Math.min(Math.max(time, 0), this.seconds);
    this.draw();
  }

  step(by) {
    this.playing = false;
    const finest = Math.min(...this.shots.map((s) => s.film.seconds / Math.max(1, s.film.frames - 1)));
    this.seek(Math.min(this.time, this.seconds) + by * finest);
  }

  faster(by) {
    const place = SPEEDS.indexOf(this.speed) + by;
    this.speed = SPEEDS[Math.min(Math.max(place, 0), SPEEDS.length - 1)];
    this.onFrame();
  }

  look(camera) {
    this.camera = camera;
    this.arrange();
  }

  arrange() {
    for (const { panel, tiles } of this.shots) {
      const mat = panel.querySelector('.mat');
      const seen = tiles.filter((_, i) => this.camera === null || i === this.camera);
      const places = boxes(seen.map((t) => t.view), mat.clientWidth, mat.clientHeight);
      for (const tile of tiles) tile.canvas.hidden = tile.label.hidden = !seen.includes(tile);
      seen.forEach((tile, i) => put(tile, places[i]));
    }
    this.draw();
  }

  draw() {
    for (const { panel, film, tiles } of this.shots) {
      const share = film.seconds > 0 ? Math.min(this.time / film.seconds, 1) : 0;
      const k = Math.floor(share * (film.frames - 1) + 1e-6);
      for (const { view, canvas } of tiles) if (!canvas.hidden) draw(canvas, film, view, k);
      panel.dataset.frame = k;
      panel.toggleAttribute('data-ended', share >= 1);
    }
    this.onFrame();
  }
}

function tilesOf(panel, film) {
  const mat = panel.querySelector('.mat');
  return film.views.map((view) => {
    const canvas = document.createElement('canvas');
    canvas.width = view.width;
    canvas.height = view.height;
    canvas.dataset.view = view.name;
    const label = document.createElement('span');
    label.className = 'camera';
    label.textContent = view.name;
    mat.append(canvas, label);
    return { view, canvas, label };
  });
}

function put({ view, canvas, label }, box) {
  for (const side of ['left', 'top', 'width', 'height']) canvas.style[side] = `${box[side]}px`;
  // Enlarged pixels stay pixels; what is shrunk is smoothed.
  canvas.classList.toggle('pixels', box.width >= view.width);
  label.style.left = `${box.left}px`;
  label.style.top = `${box.top}px`;
}
