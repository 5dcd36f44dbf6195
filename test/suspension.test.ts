// Time in which the machine was suspended counts, as far as its clock tells; and no time does that is only a step of that clock.
import os from 'node:os';
import type * as Clock from '../lib/common/clock';

/** An answer of the system is taken as new for 5 ms. */
const LOOK_MS = 10;

/** When our process is at work, and how far the clock of the machine is ahead of that. */
let at: number;
let ahead: number;

beforeEach(() => {
  at = 100_000;
  ahead = 7000;
  jest.spyOn(process, 'uptime').mockImplementation(() => at / 1000);
});

afterEach(() => {
  jest.restoreAllMocks();
});

/** As it is loaded on that platform, where the clock of the machine goes on in such steps. */
function clockOf(platform: NodeJS.Platform, stepMs: number): typeof Clock {
  jest
    .spyOn(os, 'uptime')
    .mockImplementation(() => (Math.floor((at + ahead + 0.5) / stepMs) * stepMs) / 1000);
  const original = Object.getOwnPropertyDescriptor(process, 'platform') as PropertyDescriptor;
  Object.defineProperty(process, 'platform', { ...original, value: platform });
  try {
    let clock: typeof Clock | undefined;
    jest.isolateModules(() => {
      clock = require('../lib/common/clock');
    });
    return clock as typeof Clock;
  } finally {
    Object.defineProperty(process, 'platform', original);
  }
}

describe.each([
  ['linux', 10],
  ['win32', 16],
  ['darwin', 1000],
  ['freebsd', 1000],
] as const)('%s', (platform, stepMs) => {
  test('a step of the clock of the machine is no suspension', () => {
    const { moment, msSince } = clockOf(platform, stepMs);
    for (let round = 0; round < 50; round++) {
      at += LOOK_MS + round;
      const then = moment();
      const from = at;
      for (let looks = 0; looks < 120; looks++) {
        at += LOOK_MS + 1;
        expect(msSince(then)).toBeCloseTo(at - from);
      }
    }
  });

  test('a suspension counts, but for two steps', () => {
    const { moment, msSince } = clockOf(platform, stepMs);
    for (let round = 0; round < 50; round++) {
      at += LOOK_MS + 1;
      const then = moment();
      at += LOOK_MS;
      ahead += 5000;
      expect(msSince(then)).toBeLessThanOrEqual(5000 + LOOK_MS + 0.01);
      expect(msSince(then)).toBeGreaterThanOrEqual(5000 + LOOK_MS - 2 * stepMs - 0.01);
    }
  });
});
