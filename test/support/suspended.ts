// A machine that was suspended: its clock went on, and that of our process stood still.
import os from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

/** An answer of the system is taken as new for 5 ms. */
const LOOK_MS = 10;

export class SuspendedMachine {
  private ms = 0;
  private readonly spy: jest.SpyInstance;

  constructor() {
    const { uptime } = os;
    this.spy = jest.spyOn(os, 'uptime').mockImplementation(() => uptime() + this.ms / 1000);
  }

  /** Resolves when it goes on, and that is seen. */
  async suspend(ms: number): Promise<void> {
    await sleep(LOOK_MS); // what was asked before is old
    this.ms += ms;
    await sleep(LOOK_MS);
  }

  async restore(): Promise<void> {
    this.spy.mockRestore();
    await sleep(LOOK_MS);
  }
}
