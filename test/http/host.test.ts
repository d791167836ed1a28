import { describe, expect, it } from 'vitest';
import { checkHost } from '../../src/http/host.js';

const answers = (header: string | undefined, host: string, allowedHosts: readonly string[] = []): boolean => {
  try {
    checkHost(header, { host, allowedHosts });
    return true;
  } catch (error) {
    expect(error).toMatchObject({ code: 'HOST_NOT_ALLOWED' });
    return false;
  }
};

describe('checkHost()', () => {
  it.each([
    'localhost',
    'localhost:8080',
    'LOCALHOST.:80',
    'a.localhost',
    '127.0.0.1:8080',
    '[::1]:8080',
    '192.168.1.5',
  ])('answers on loopback under %s', (header) => {
    expect(answers(header, '127.0.0.1')).toBe(true);
  });

  it.each(['evil.example', 'evil.example:8080', 'localhost.evil.example', '', undefined, '127.0.0.1.evil.example'])(
    'does not answer on loopback under %s',
    (header) => {
      for (const host of ['127.0.0.1', '127.1.2.3', 'localhost', '::1']) expect(answers(header, host)).toBe(false);
    },
  );

  it('answers under names it was given, and under all when it listens to a network without any', () => {
    expect(answers('box.example:80', '127.0.0.1', ['box.example'])).toBe(true);
    expect(answers('evil.example', '127.0.0.1', ['*'])).toBe(true);
    expect(answers('box.example', '0.0.0.0')).toBe(true);
    expect(answers('evil.example', '0.0.0.0', ['box.example'])).toBe(false);
    expect(answers('box.lan', 'box.lan', ['other.lan'])).toBe(true);
  });
});
