import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
    maxWorkers: 2,
    // Servers that tests start leave nothing in the home of whoever runs them.
    env: { MOESTRO_PREFIX_DIR: 'off' },
  },
});
