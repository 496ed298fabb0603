/** 12345 as 12,345, whatever the locale. */
export function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** `1 row`, `2 rows` */
export function counted(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}
