import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

/** Polls until the condition holds; fails when it does not within (by default) ten seconds. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  { within = 10_000 }: { within?: number } = {},
): Promise<void> {
  const deadline = performance.now() + within;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${within} ms: ${condition}`);
    await sleep(2);
  }
}

/** A promise, and what fulfils it. */
export function latch() {
  let open = () => {};
  const opened = new Promise<void>((resolve) => (open = resolve));
  return { opened, open };
}
