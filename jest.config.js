'use strict';

/** @type {import('jest').Config} */
module.exports = {
  testEnvironment: 'node',
  testMatch: ['<rootDir>/test/**/*.test.ts'],
  transform: { '^.+\\.ts$': ['ts-jest', { tsconfig: '<rootDir>/tsconfig.test.json' }] },
  // Build results and caches hold no tests, and may hold copies of the package.
  modulePathIgnorePatterns: ['<rootDir>/build/', '<rootDir>/prebuilds/', '<rootDir>/.cache/'],
  // Most tests start processes of their own, which want a core as well.
  maxWorkers: 2,
  testTimeout: 30_000,
};
