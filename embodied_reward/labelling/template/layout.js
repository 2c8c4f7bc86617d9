// Where the cameras of a clip go: as many columns as make the pictures largest.

const GAP = 2;

// Boxes [{left, top, width, height}] for pictures of these sizes inside width x height.
export function boxes(sizes, width, height) {
  let best = null;
  for (let columns = 1; columns <= sizes.length; columns++) {
    const rows = Math.ceil(sizes.length / columns);
    const cell = {
      width: (width - GAP * (columns - 1)) / columns,
      height: (height - GAP * (rows - 1)) / rows,
    };
    const scales = sizes.map((s) => Math.min(cell.width / s.width, cell.height / s.height));
    const area = sizes.reduce((sum, s, i) => sum + s.width * s.height * scales[i] ** 2, 0);
    if (best === null || area > best.area) best = { area, columns, cell, scales };
  }
  return sizes.map((size, i) => place(size, i, best));
}

function place(size, i, { columns, cell, scales }) {
  const width = Math.max(1, size.width * scales[i]);
  const height = Math.max(1, size.height * scales[i]);
  return {
    left: (i % columns) * (cell.width + GAP) + (cell.width - width) / 2,
    top: Math.floor(i / columns) * (cell.height + GAP) + (cell.height - height) / 2,
    width, height,
  };
}
