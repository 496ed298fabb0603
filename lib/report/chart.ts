// Line charts as inline SVG: no script, no font and nothing else from outside.

/** A line of a chart. */
export interface Series {
  readonly name: string;
  /** In ascending order of x, all finite. */
  readonly points: readonly (readonly [x: number, y: number])[];
}

export interface Chart {
  readonly title: string;
  readonly series: readonly Series[];
  /** Decades instead of even steps; values that are not positive are left out. */
  readonly isLogarithmic?: boolean;
}

const WIDTH = 560;
const HEIGHT = 260;
const MARGIN = { left: 62, right: 24, top: 12, bottom: 34 };
/** More points than pixels tell nothing. */
const MAX_POINTS = 500;
const MAX_TICKS = 6;

export function escapeHtml(text: string): string {
  const entities: Record<string, string> = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    '"': "&quot;",
  };
  return text.replace(/[&<>"]/g, (character) => entities[character]!);
}

/** At most `limit` points, evenly chosen; the first and the last stay. */
export function thin<T>(points: readonly T[], limit = MAX_POINTS): readonly T[] {
  if (points.length <= limit) return points;
  const stride = (points.length - 1) / (limit - 1);
  return Array.from({ length: limit }, (_, i) => points[Math.round(i * stride)]!);
}

/** Round numbers within [low, high], at most {@link MAX_TICKS}. */
export function ticksOf(low: number, high: number): number[] {
  const span = high - low;
  if (!(span > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(span / MAX_TICKS));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((s) => span / s < MAX_TICKS)!;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, i) =>
    Number(((first + i) * step).toPrecision(12)),
  );
}

/** `1,500`, `0.05`, `1e-12`. */
export function shortNumber(value: number): string {
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-3 || size >= 1e6)) {
    return value
      .toExponential(2)
      .replace(/\.?0+e/, "e")
      .replace("e+", "e");
  }
  return value.toLocaleString("en-US", { maximumSignificantDigits: 4 });
}

interface Axis {
  readonly ticks: readonly number[];
  /** From a value to a share of the axis. */
  place(value: number): number;
}

function linearAxis(values: readonly number[]): Axis {
  const low = smallest(values);
  const high = largest(values);
  // A constant gets room on both sides.
  const pad = high > low ? 0 : Math.abs(high) * 0.1 || 1;
  const [from, to] = [low - pad, high + pad];
  return { ticks: ticksOf(from, to), place: (value) => (value - from) / (to - from) };
}

function logarithmicAxis(values: readonly number[]): Axis {
  const from = Math.floor(Math.log10(smallest(values)));
  const to = Math.max(from + 1, Math.ceil(Math.log10(largest(values))));
  const stride = Math.ceil((to - from) / MAX_TICKS);
  const ticks = Array.from({ length: Math.floor((to - from) / stride) + 1 }, (_, i) =>
    Number(`1e${from + i * stride}`),
  );
  return { ticks, place: (value) => (Math.log10(value) - from) / (to - from) };
}

const smallest = (values: readonly number[]) => values.reduce((a, b) => Math.min(a, b));
const largest = (values: readonly number[]) => values.reduce((a, b) => Math.max(a, b));

/** A figure with its legend; an empty text where there is nothing to draw. */
export function renderChart({ title, series, isLogarithmic = false }: Chart): string {
  const shown = series
    .map(({ name, points }) => ({
      name,
      points: thin(points.filter(([, y]) => !isLogarithmic || y > 0)),
    }))
    .filter(({ points }) => points.length > 0);
  if (shown.length === 0) return "";
  const all = shown.flatMap(({ points }) => points);
  const x = linearAxis(all.map(([value]) => value));
  const values = all.map(([, value]) => value);
  const y = isLogarithmic ? logarithmicAxis(values) : linearAxis(values);
  const left = (value: number) =>
    MARGIN.left + x.place(value) * (WIDTH - MARGIN.left - MARGIN.right);
  const top = (value: number) =>
    HEIGHT - MARGIN.bottom - y.place(value) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const lines = shown.map(({ points }, i) => renderLine(points, i, left, top)).join("");
  const legend = shown.map(({ name, points }, i) => {
    const last = shortNumber(points.at(-1)![1]);
    return `<li class="s${i}">${escapeHtml(name)} <b>${last}</b></li>`;
  });
  return `<figure><figcaption>${escapeHtml(title)}</figcaption>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escapeHtml(title)}">
${renderAxes(x, y, left, top)}${lines}</svg>
<ul>${legend.join("")}</ul></figure>
`;
}

type Place = (value: number) => number;

function renderLine(points: Series["points"], index: number, left: Place, top: Place): string {
  const path = points.map(([x, y]) => `${left(x).toFixed(1)},${top(y).toFixed(1)}`);
  // A line needs two points.
  if (points.length > 1) return `<polyline class="s${index}" points="${path.join(" ")}"/>\n`;
  const [cx, cy] = path[0]!.split(",");
  return `<circle class="s${index}" cx="${cx}" cy="${cy}" r="3"/>\n`;
}

function renderAxes(x: Axis, y: Axis, left: Place, top: Place): string {
  const bottom = HEIGHT - MARGIN.bottom;
  const right = WIDTH - MARGIN.right;
  const rows = y.ticks.map((tick) => {
    const at = top(tick).toFixed(1);
    return (
      `<line x1="${MARGIN.left}" x2="${right}" y1="${at}" y2="${at}"/>` +
      `<text x="${MARGIN.left - 7}" y="${at}" dy="0.35em" text-anchor="end">${shortNumber(tick)}</text>`
    );
  });
  const columns = x.ticks.map(
    (tick) =>
      `<text x="${left(tick).toFixed(1)}" y="${bottom + 16}" text-anchor="middle">${shortNumber(tick)}</text>`,
  );
  const label = `<text x="${right}" y="${HEIGHT - 4}" text-anchor="end">step</text>`;
  return `${rows.join("")}\n${columns.join("")}${label}\n`;
}
