/**
 * What a chat template finds beside its messages, as Hugging Face's `apply_chat_template` provides it.
 */

/**
 * Values that all range() calls of one rendering may make together. A template is part of an untrusted file, and no
 * honest one counts further than its messages.
 */
const RANGE_VALUES_MAX = 1_000_000;

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = 'January February March April May June July August September October November December'.split(' ');

const twoDigits = (value: number): string => String(value).padStart(2, '0');

/** Python's strftime in the C locale, for the directives that dates in prompts are made of; others stay as written. */
export function formatTime(time: Date, format: string): string {
  const hour12 = time.getHours() % 12 || 12;
  const startOfYear = Date.UTC(time.getFullYear(), 0, 0);
  const today = Date.UTC(time.getFullYear(), time.getMonth(), time.getDate());
  const directives: Readonly<Record<string, string>> = {
    Y: String(time.getFullYear()),
    y: twoDigits(time.getFullYear() % 100),
    m: twoDigits(time.getMonth() + 1),
    d: twoDigits(time.getDate()),
    j: String((today - startOfYear) / 86_400_000).padStart(3, '0'),
    B: MONTHS[time.getMonth()]!,
    b: MONTHS[time.getMonth()]!.slice(0, 3),
    A: DAYS[time.getDay()]!,
    a: DAYS[time.getDay()]!.slice(0, 3),
    H: twoDigits(time.getHours()),
    I: twoDigits(hour12),
    M: twoDigits(time.getMinutes()),
    S: twoDigits(time.getSeconds()),
    p: time.getHours() < 12 ? 'AM' : 'PM',
    '%': '%',
  };
  return format.replace(/%([A-Za-z%])/g, (text, name: string) => directives[name] ?? text);
}

/** Python's range, counting into one account per rendering. */
function boundedRange(): (start: number, stop?: number, step?: number) => number[] {
  let left = RANGE_VALUES_MAX;
  return (start, stop, step = 1) => {
    const [from, to] = stop === undefined ? [0, start] : [start, stop];
    if (step === 0) throw new Error('range() needs a step other than 0');
    const count = Math.max(0, Math.ceil((to - from) / step));
    if (!(count <= left)) throw new Error(`range() of ${count} values, at most ${RANGE_VALUES_MAX} are allowed`);
    left -= count;
    return Array.from({ length: count }, (_, i) => from + i * step);
  };
}

/** Fresh for each rendering. */
export function templateGlobals(): Readonly<Record<string, unknown>> {
  return {
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
    range: boundedRange(),
    raise_exception: (message: unknown) => {
      throw new Error(String(message));
    },
    strftime_now: (format: string) => formatTime(new Date(), format),
  };
}
