/** Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere. */
import cliProgress from 'cli-progress';
import { statusLine } from './status-line.js';

export interface ProgressLine {
  /** @param done of `total` units, of which `skipped` were done before; `label` names the phase. */
  update(label: string, done: number, total: number, skipped?: number): void;
  /** Ends the line so that other output can follow. Safe to call twice. */
  stop(): void;
}

/**
 * @param unit what is counted, e.g. "weights"; shown in millions where there are any.
 * @param now milliseconds of a steady clock.
 */
export function progressLine(
  stream: NodeJS.WriteStream,
  unit: string,
  now: () => number = () => performance.now(),
): ProgressLine {
  const started = now();
  const facts = (done: number, total: number, skipped: number) => {
    const seconds = (now() - started) / 1000;
    const rate = seconds > 0 ? (done - skipped) / seconds : 0;
    const scaled = total >= 1e6 ? millions : plain;
    return {
      done: scaled(done),
      all: `${scaled(total)}${total >= 1e6 ? ' M' : ''} ${unit}`,
      rate: `${scaled(rate)}${total >= 1e6 ? ' M' : ''}/s`,
      left: rate > 0 ? duration((total - done) / rate) : '-',
    };
  };
  if (stream.isTTY) {
    const bar = new cliProgress.SingleBar({
      stream,
      format: `{label} {bar} {percentage}% | {done} of {all} | {rate} | {left} left`,
      barCompleteChar: '=',
      barIncompleteChar: ' ',
      hideCursor: true,
      barsize: 24,
    });
    let isStarted = false;
    return {
      update(label, done, total, skipped = 0) {
        const payload = { label, ...facts(done, total, skipped) };
        if (!isStarted) bar.start(total, done, payload);
        else bar.update(done, payload);
        isStarted = true;
      },
      stop: () => bar.stop(),
    };
  }
  const log = statusLine(stream, now);
  let isDone = false;
  return {
    update(label, done, total, skipped = 0) {
      if (isDone) return;
      isDone = done >= total;
      const { done: part, all, rate, left } = facts(done, total, skipped);
      const percent = total > 0 ? Math.floor((100 * done) / total) : 100;
      log.show(`${label}: ${percent} %, ${part} of ${all}, ${rate}, ${left} left`, isDone);
    },
    stop() {},
  };
}

const plain = (count: number): string => count.toFixed(0);
const millions = (count: number): string => (count / 1e6).toFixed(count < 1e8 ? 1 : 0);

/** "42 s", "12 min 5 s", "3 h 20 min". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}
