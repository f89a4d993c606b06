/** Numbers of bytes as people read them. */

const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

/** "512 bytes", "4.9 MB", "98 MB" */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 999.5 would round to 1000 of the smaller unit.
  for (; value >= 999.5 && unit < UNITS.length - 1; unit++) value /= 1000;
  return `${value < 9.95 && unit > 0 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

/** "16.0 MiB": a limit as it is set, and what is measured against it. */
export function formatMebibytes(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}
