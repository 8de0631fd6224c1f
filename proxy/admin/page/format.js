// The text of figures and times. Times are in milliseconds since 1970.

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

// bytes formats a size with three digits: "12.3 MiB".
export function bytes(n) {
  let unit = 0;
  for (n = Math.max(n, 0); n >= 1000 && unit < units.length - 1; unit++) n /= 1024;
  const digits = unit === 0 || n >= 100 ? 0 : n >= 10 ? 1 : 2;
  return `${n.toFixed(digits)} ${units[unit]}`;
}

export const speed = (n) => `${bytes(n)}/s`;

export const count = (n) => Math.round(n).toLocaleString("en");

export const countOf = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;

// percent returns 100 % only if the part is the whole.
export function percent(part, whole) {
  if (whole === 0) return "–";
  const p = (100 * part) / whole;
  if (p === 100 || p < 10) return `${p < 10 && p > 0 ? p.toFixed(1) : p.toFixed(0)} %`;
  return `${Math.min(p, 99.9).toFixed(1)} %`;
}

// span formats a duration in its largest unit, or its two largest: "3 d 4 h".
export function span(ms) {
  const s = Math.max(Math.round(ms / 1000), 0);
  if (s < 60) return `${s} s`;
  const min = Math.floor(s / 60);
  if (min < 60) return `${min} min`;
  const h = Math.floor(min / 60);
  if (h < 24) return h < 10 && min % 60 ? `${h} h ${min % 60} min` : `${h} h`;
  const d = Math.floor(h / 24);
  return d < 10 && h % 24 ? `${d} d ${h % 24} h` : `${d} d`;
}

export const ago = (at, now) => (now - at < 5000 ? "now" : `${span(now - at)} ago`);

export const clock = (at) => new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });

// digest shortens a digest to its beginning, which is enough to find it.
export const digest = (d) => (d ?? "").replace(/^sha256:/, "").slice(0, 12);
