/**
 * Values of JSON Schema's `format`, as patterns that write a useful part of what each allows: everything they match is valid,
 * and rare forms (leap days and seconds, quoted mailboxes, IPv4 within IPv6) are left out.
 */

const HEX = '[0-9a-fA-F]';
const GROUP = `${HEX}{1,4}`;
const OCTET = '(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])';
const LABEL = '[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,30}[a-zA-Z0-9])?';
const DATE =
  '[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)' +
  '|02-(?:0[1-9]|1[0-9]|2[0-8]))';
const TIME = '(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])';
const COUNT = '[0-9]{1,4}';
const CLOCK = `T(?:${COUNT}H(?:${COUNT}M)?(?:${COUNT}S)?|${COUNT}M(?:${COUNT}S)?|${COUNT}S)`;
const CALENDAR = `(?:${COUNT}Y(?:${COUNT}M)?(?:${COUNT}D)?|${COUNT}M(?:${COUNT}D)?|${COUNT}D)`;
const PATH = "[A-Za-z0-9._~!$&'()*+,;=:@-]";
const URI = `[a-z][a-z0-9+.-]{0,15}://${LABEL}(?:\\.${LABEL}){0,6}(?::[1-9][0-9]{0,3})?(?:/${PATH}{1,64}){0,16}/?`;

/** IPv6 with one "::" after `before` groups, and up to `after` groups behind it. */
const shortened = Array.from({ length: 6 }, (_, i) => {
  const before = i + 1;
  return `(?:${GROUP}:){${before}}(?::${GROUP}){1,${7 - before}}`;
});

export const STRING_FORMATS: ReadonlyMap<string, string> = new Map([
  ['date', DATE],
  ['time', TIME],
  ['date-time', `${DATE}T${TIME}`],
  ['duration', `P(?:${COUNT}W|${CALENDAR}(?:${CLOCK})?|${CLOCK})`],
  ['email', `[A-Za-z0-9]+(?:[._+-][A-Za-z0-9]+)*@${LABEL}(?:\\.${LABEL}){1,6}`],
  ['hostname', `${LABEL}(?:\\.${LABEL}){0,6}`],
  ['ipv4', `${OCTET}(?:\\.${OCTET}){3}`],
  ['ipv6', `(?:${GROUP}:){7}${GROUP}|(?:${GROUP}:){1,7}:|:(?::${GROUP}){1,7}|${shortened.join('|')}`],
  ['uuid', `${HEX}{8}-${HEX}{4}-${HEX}{4}-${HEX}{4}-${HEX}{12}`],
  ['uri', `${URI}(?:\\?${PATH}{0,128})?(?:#${PATH}{0,128})?`],
  ['json-pointer', '(?:/(?:[^~/]|~0|~1)*)*'],
]);

/** Formats that JSON Schema defines and that are not written here: asking for them is refused. Other names mean nothing. */
export const OTHER_FORMATS: readonly string[] = [
  'idn-email',
  'idn-hostname',
  'iri',
  'iri-reference',
  'regex',
  'relative-json-pointer',
  'uri-reference',
  'uri-template',
];
