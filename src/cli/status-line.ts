/** One line on standard error that is written over; a line every ten seconds where that is no terminal. */
export interface StatusLine {
  /** @param isLast shown also when a log file has had a line just now. */
  readonly show: (line: string, isLast?: boolean) => void;
  /** Takes the line away. */
  readonly clear: () => void;
}

/** How often a log file gets a line: one of an hour's work stays readable. */
const LOG_MS = 10_000;

export function statusLine(
  stream: { readonly isTTY?: boolean; write(text: string): unknown } = process.stderr,
  now: () => number = () => performance.now(),
): StatusLine {
  if (stream.isTTY === true) {
    return {
      show: (line) => stream.write(`\r\x1b[K${line}`),
      clear: () => stream.write('\r\x1b[K'),
    };
  }
  let shownAt = now();
  return {
    show: (line, isLast = false) => {
      if (now() - shownAt < LOG_MS && !isLast) return;
      shownAt = now();
      stream.write(`${line}\n`);
    },
    clear: () => {},
  };
}
