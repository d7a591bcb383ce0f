/** Drawings: curves and points by uPlot, bars in tables as they are. Each has its numbers in words or a table beside it. */

import { h, svg } from "./dom.js";

/* global uPlot */

const HEIGHT = 190;
const drawn = new Map(); // what draws each chart anew, and how it ends; those that are gone are let go with the next one

// What is drawn on a canvas doesn't follow style sheets by itself.
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.addEventListener("change", () => [...drawn.keys()].forEach((redraw) => redraw()));

/** A chart that is as wide as its place, in the colours of the page. make(colours, width) gives [options, data]. */
function chart(label, make) {
  const place = h("div.chart", { role: "img", "aria-label": label });
  let plot = null;
  let stood = false; // on the page, where it is put only after it was made
  const draw = () => {
    stood ||= place.isConnected;
    plot?.destroy();
    plot = null;
    if (place.clientWidth > 0) plot = new uPlot(...make(colours(), place.clientWidth), place);
  };
  const resized = new ResizeObserver(() => {
    if (plot?.width !== place.clientWidth) draw();
  });
  for (const [redraw, other] of drawn) {
    if (other.isGone()) {
      other.stop();
      drawn.delete(redraw);
    }
  }
  drawn.set(draw, {
    isGone: () => stood && !place.isConnected,
    stop: () => {
      resized.disconnect();
      plot?.destroy();
    },
  });
  resized.observe(place);
  return place;
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(
    ["ink", "muted", "rule", "estimate", "band", "truth"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]),
  );
}

const FONT = "12px system-ui, sans-serif";

function axis(colour, label, rest = {}) {
  return {
    stroke: colour.muted, font: FONT, label, labelFont: FONT, labelSize: 18, size: 44,
    grid: { stroke: colour.rule, width: 1 }, ticks: { stroke: colour.rule, width: 1, size: 4 }, ...rest,
  };
}

/** The estimate over the downweight, with its band, from the baseline to the truth where that is known. */
export function curve(points, { baseline, truth, unit, label }) {
  const data = [
    points.map((point) => point.downweight),
    points.map((point) => point.interval[1]),
    points.map((point) => point.interval[0]),
    points.map((point) => point.estimate),
    points.map(() => baseline),
    points.map((point) => (point.downweight === 1 ? (truth ?? null) : null)),
  ];
  const bounds = [...data[1], ...data[2], baseline, ...(truth === undefined ? [] : [truth])];
  const low = Math.min(...bounds);
  const room = 0.06 * (Math.max(...bounds) - low || 0.01);
  return chart(label, (colour, width) => [
    {
      width, height: HEIGHT, legend: { show: false }, cursor: { show: false }, padding: [8, 14, 0, 0],
      scales: { x: { time: false, range: [0, 1.015] }, y: { range: [low - room, Math.max(...bounds) + room] } },
      axes: [axis(colour, "downweight", { size: 28 }), axis(colour, unit, { size: 58 })],
      series: [
        {},
        { stroke: colour.band, width: 1, points: { show: false } },
        { stroke: colour.band, width: 1, points: { show: false } },
        { stroke: colour.estimate, width: 2, points: { show: false } },
        { stroke: colour.muted, width: 1, dash: [4, 4], points: { show: false } },
        { stroke: colour.truth, width: 0, points: { show: true, size: 9, fill: colour.truth, stroke: colour.truth } },
      ],
      bands: [{ series: [1, 2], fill: colour.band }],
    },
    data,
  ]);
}

/** Estimates with their intervals against the retrained values, and the line where they would be equal. */
export function againstTruth(anchors, { unit, label }) {
  const sorted = [...anchors].sort((one, other) => one.truth - other.truth);
  const outside = (one) => one.inside_interval === false;
  const values = sorted.flatMap((one) => [one.truth, one.estimate]);
  const [low, high] = padded(Math.min(...values), Math.max(...values));
  return chart(label, (colour, width) => [
    {
      width, height: Math.min(width, 420), legend: { show: false }, cursor: { show: false }, padding: [8, 14, 0, 0],
      scales: { x: { time: false, range: [low, high] }, y: { range: [low, high] } },
      axes: [axis(colour, `retrained, ${unit}`, { size: 28 }), axis(colour, `estimate, ${unit}`, { size: 58 })],
      series: [{}, points(colour.estimate, 4), points(colour.truth, 9)],
      hooks: { drawAxes: [(plot) => whiskers(plot, sorted, colour, low, high)] },
    },
    [
      sorted.map((one) => one.truth),
      sorted.map((one) => (outside(one) ? null : one.estimate)),
      sorted.map((one) => (outside(one) ? one.estimate : null)), // last, and so on top
    ],
  ]);
}

const points = (colour, size) => ({ stroke: colour, width: 0, points: { show: true, size, stroke: colour, fill: colour } });

function padded(low, high) {
  const room = 0.05 * (high - low || 0.01);
  return [low - room, high + room];
}

function whiskers(plot, anchors, colour, low, high) {
  const { ctx, bbox } = plot;
  const x = (value) => plot.valToPos(value, "x", true);
  const y = (value) => plot.valToPos(value, "y", true);
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.lineWidth = devicePixelRatio;
  line(ctx, colour.muted, x(low), y(low), x(high), y(high));
  for (const { truth, interval, inside_interval: inside } of anchors) {
    if (interval) line(ctx, inside ? colour.band : colour.truth, x(truth), y(interval[0]), x(truth), y(interval[1]));
  }
  ctx.restore();
}

function line(ctx, stroke, ...ends) {
  ctx.strokeStyle = stroke;
  ctx.beginPath();
  ctx.moveTo(ends[0], ends[1]);
  ctx.lineTo(ends[2], ends[3]);
  ctx.stroke();
}

/** Norms of the derivatives by their order, on a logarithmic scale; all above zero. */
export function norms(rows, { label }) {
  const values = rows.map((row) => Math.log2(row.norm));
  const [low, high] = [Math.floor(Math.min(...values)) - 0.2, Math.ceil(Math.max(...values)) + 0.2];
  const orders = rows.map((row) => row.order);
  return chart(label, (colour, width) => [
    {
      width, height: HEIGHT, legend: { show: false }, cursor: { show: false }, padding: [8, 14, 0, 0],
      scales: { x: { time: false, range: [orders[0] - 0.3, orders.at(-1) + 0.3] }, y: { range: [low, high] } },
      axes: [
        axis(colour, "order", { size: 28, splits: orders, values: (_, splits) => splits }),
        axis(colour, "log₂ of the norm", { size: 50 }),
      ],
      series: [{}, { stroke: colour.estimate, width: 1, points: { show: true, size: 8, fill: colour.estimate, stroke: colour.estimate } }],
    },
    [orders, values],
  ]);
}

const WIDTH = 200;

/**
 * A bar from zero, with an interval, and the truth where that is known; whoever can't see it has the numbers beside it.
 * Drawn is from one value to another; what lies beyond ends at the edge. before is marked, as zero is.
 */
export function bar({ value, low, high, truth, before }, [from, to]) {
  const place = (at) => (WIDTH * (Math.min(Math.max(at, from), to) - from)) / (to - from);
  const mark = (kind, at) => at !== undefined && svg(`line.${kind}`, { x1: place(at), x2: place(at), y1: 0, y2: 16 });
  const [zero, end] = [place(0), place(value)];
  return svg(
    "svg.bar", { viewBox: `0 0 ${WIDTH} 16`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
    svg("rect.length", { x: Math.min(zero, end), y: 4, width: Math.abs(end - zero), height: 8 }),
    mark("zero", 0),
    mark("before", before),
    low !== undefined && svg("line.interval", { x1: place(low), x2: Math.max(place(high), place(low) + 1), y1: 8, y2: 8 }),
    mark("truth", truth),
  );
}
