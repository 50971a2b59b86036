'use strict';
const dark = matchMedia('(prefers-color-scheme: dark)');
const HUES = [215, 25, 150, 285, 55, 185, 340, 100];
const color = (i, alpha) => `hsl(${HUES[i % 8]} 65% ${dark.matches ? 66 : 42}% / ${alpha})`;
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const short = x => Math.abs(x) >= 1e6 ? +(x / 1e6).toPrecision(3) + 'M'
  : Math.abs(x) >= 1e3 ? +(x / 1e3).toPrecision(3) + 'k' : String(+x.toPrecision(4));

// A plot's curves on one list of x: what uPlot reads. Low and high are two
// invisible series each, with a band or bars between them.
function aligned(plot) {
  const tables = plot.curves.map(c => {
    const points = [...c.points].sort((a, b) => a.x - b.x);
    return [points.map(p => p.x), points.map(p => p.value),
      points.map(p => p.low ?? null), points.map(p => p.high ?? null)];
  });
  return tables.length ? uPlot.join(tables) : [[]];
}

function draw(place, plot) {
  const data = aligned(plot), series = [{ label: plot.x }], bands = [];
  plot.curves.forEach((c, i) => {
    const at = series.length, seeds = c.points.some(p => p.low !== undefined);
    series.push({ label: c.name, stroke: color(i, 1), width: 2, spanGaps: true,
      points: { show: c.points.length < 60, size: 8, fill: color(i, 1) }, value: (u, v) => v == null ? '' : short(v) });
    for (const end of ['low', 'high']) {
      series.push({ label: `${c.name}, ${end}`, stroke: color(i, .25), width: 1, spanGaps: true,
        points: { show: false }, show: seeds });
    }
    if (seeds) bands.push({ series: [at + 2, at + 1], fill: color(i, .15) });
  });
  const tip = document.createElement('div');
  tip.className = 'tip';
  const near = u => {
    let best = null;
    if (u.cursor.left < 0) { tip.style.display = 'none'; return; }
    plot.curves.forEach(c => c.points.forEach(p => {
      const dx = u.valToPos(p.x, 'x') - u.cursor.left, dy = u.valToPos(p.value, 'y') - u.cursor.top;
      const d = Math.hypot(dx, dy);
      if (d < 40 && (!best || d < best.d)) best = { d, c, p };
    }));
    tip.style.display = best ? 'block' : 'none';
    if (!best) return;
    const { c, p } = best, seeds = p.seeds && p.seeds.length > 1;
    tip.textContent = [c.name, `${plot.along}: ${short(p.along)}`, plot.x === plot.along ? '' : `${plot.x}: ${short(p.x)}`,
      `${plot.y}: ${short(p.value)}` + (p.low === undefined ? '' : ` (${short(p.low)} to ${short(p.high)})`),
      seeds ? `seeds: ${p.seeds.map(short).join(', ')}` : '', p.count ? `N ${p.count}` : ''].filter(x => x).join('\n');
    const left = u.valToPos(p.x, 'x') + u.over.offsetLeft;
    tip.style.left = Math.min(left + 10, place.clientWidth - tip.offsetWidth) + 'px';
    tip.style.top = u.valToPos(p.value, 'y') + u.over.offsetTop + 12 + 'px';
  };
  const dashes = u => {
    u.ctx.save();
    u.ctx.setLineDash([6, 5]);
    u.ctx.strokeStyle = css('--quiet');
    for (const x of plot.crossings) {
      const at = u.valToPos(x, 'x', true);
      u.ctx.beginPath();
      u.ctx.moveTo(at, u.bbox.top);
      u.ctx.lineTo(at, u.bbox.top + u.bbox.height);
      u.ctx.stroke();
    }
    u.ctx.restore();
  };
  const axis = label => ({ label, stroke: css('--ink'), grid: { stroke: css('--line'), width: 1 },
    ticks: { stroke: css('--line') }, values: (u, vs) => vs.map(v => v == null ? '' : short(v)), size: 64 });
  const width = () => Math.max(place.clientWidth, 280);
  const chart = new uPlot({ width: width(), height: Math.min(420, 120 + width() * .6), series, bands,
    scales: { x: { time: false, distr: plot.log_x ? 3 : 1 } },
    axes: [axis(plot.x), axis(plot.y)], legend: { live: false },
    cursor: { drag: { x: true, y: true } },
    hooks: { setCursor: [near], draw: [dashes] } }, data, place);
  // The legend names curves, not the ends of their bands.
  chart.root.querySelectorAll('.u-legend .u-series').forEach((row, i) => {
    if (i % 3) row.style.display = 'none';
  });
  place.append(tip);
  return { chart, width };
}

const plots = JSON.parse(document.getElementById('data').textContent);
let drawn = [];
function drawAll() {
  drawn.forEach(d => d.chart.destroy());
  drawn = [...document.querySelectorAll('.plot')].map(place => {
    place.replaceChildren();
    return draw(place, plots[place.dataset.plot]);
  });
}
drawAll();
dark.addEventListener('change', drawAll);
addEventListener('resize', () => drawn.forEach(d => d.chart.setSize({ width: d.width(), height: d.chart.height })));

document.querySelectorAll('.sortable').forEach(table => {
  table.querySelectorAll('thead th').forEach((head, column) => {
    head.tabIndex = 0;
    const sort = () => {
      const down = head.getAttribute('aria-sort') === 'ascending';
      table.querySelectorAll('th').forEach(h => h.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', down ? 'descending' : 'ascending');
      const value = row => {
        const cell = row.cells[column], text = cell.dataset.value ?? cell.innerText.trim();
        return text === '' ? null : isNaN(text) ? text : +text;
      };
      const body = table.tBodies[0];
      const order = (a, b) => a < b ? -1 : a > b ? 1 : 0;
      [...body.rows].sort((a, b) => {
        const x = value(a), y = value(b);
        if (x === null || y === null) return (x === null) - (y === null);
        const found = typeof x === typeof y ? order(x, y) : order(String(x), String(y));
        return down ? -found : found;
      }).forEach(row => body.append(row));
    };
    head.addEventListener('click', sort);
    head.addEventListener('keydown', e => { if (e.key === 'Enter') sort(); });
  });
});
