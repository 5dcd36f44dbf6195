// What is published about a lock, in its order.
import { subscribe, unsubscribe } from 'node:diagnostics_channel';

export interface Published {
  readonly event: string;
  /** The object itself. */
  readonly context: Record<string, unknown>;
}

const TRACED = ['start', 'end', 'asyncStart', 'asyncEnd', 'error'];
const PLAIN = ['release', 'abandoned', 'lost', 'leak', 'deadlock'];

/** Listens while `work` runs: to all channels, or to those named. */
export async function publishedBy(
  namespace: string,
  work: (published: Published[]) => unknown,
  events: readonly string[] = [...TRACED, ...PLAIN],
): Promise<Published[]> {
  const published: Published[] = [];
  const listeners = events.map((event) => {
    const channel = TRACED.includes(event) ? `tracing:proclock:acquire:${event}` : `proclock:${event}`;
    const listener = (message: unknown): void => {
      const context = message as Published['context'];
      if (context.namespace === namespace) published.push({ event, context });
    };
    subscribe(channel, listener);
    return { channel, listener };
  });
  try {
    await work(published);
  } finally {
    for (const { channel, listener } of listeners) unsubscribe(channel, listener);
  }
  return published;
}

export const eventsOf = (published: readonly Published[]): string[] => published.map(({ event }) => event);
