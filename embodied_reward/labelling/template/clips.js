// Fetches clips and keeps the decoded pictures of those that are on the screen or come next.

const cache = new Map(); // episode -> promise of a clip

export function clip(episode) {
  if (!cache.has(episode)) {
    const loading = load(episode);
    cache.set(episode, loading);
    loading.catch(() => cache.delete(episode)); // so that it can be tried again
  }
  return cache.get(episode);
}

// Forget all clips but these.
export function keep(episodes) {
  const wanted = new Set(episodes);
  for (const [episode, loading] of cache) {
    if (wanted.has(episode)) continue;
    cache.delete(episode);
    loading.then((c) => c.views.flatMap((v) => v.pictures).forEach((p) => p.close()), () => {});
  }
}

async function load(episode) {
  const facts = await (await get(`clip/${episode}`)).json();
  const sheets = facts.views.map((view, v) =>
    Promise.all(Array.from({ length: view.sheets }, (_, part) => picture(episode, v, part))));
  const pictures = await Promise.all(sheets);
  return { ...facts, views: facts.views.map((view, v) => ({ ...view, pictures: pictures[v] })) };
}

async function picture(episode, view, part) {
  return createImageBitmap(await (await get(`sheet/${episode}/${view}/${part}`)).blob());
}

async function get(path) {
  const reply = await fetch(path);
  if (!reply.ok) throw new Error((await reply.json()).error);
  return reply;
}

// Draw frame `k` of a view; canvas and frame have the same size.
export function draw(canvas, film, view, k) {
  const within = k % film.perSheet;
  const x = (within % film.columns) * view.width;
  const y = Math.floor(within / film.columns) * view.height;
  canvas.getContext('2d').drawImage(
    view.pictures[Math.floor(k / film.perSheet)],
    x, y, view.width, view.height, 0, 0, view.width, view.height);
}
