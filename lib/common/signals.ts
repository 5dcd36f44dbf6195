// Who listens to an AbortSignal. A program that shuts down may have one for all that it waits for: it gets one listener for all of
// ours, since Node takes more than ten for a leak, and says so.

type Listener = () => void;

const listening = new WeakMap<AbortSignal, { readonly all: Set<Listener>; readonly tell: Listener }>();

/**
 * From now on `listener` is called when it aborts, until {@link stopListening}. Signals of some libraries call at once.
 * @throws what such a signal throws; nobody listens then
 */
export function listenTo(signal: AbortSignal, listener: Listener): void {
  const others = listening.get(signal);
  if (others !== undefined) {
    others.all.add(listener);
    return;
  }
  const all = new Set([listener]);
  // The last one first: a wait that leaves lets in those behind it, which are not to be granted any more.
  const tell = (): void => {
    for (const each of [...all].reverse()) if (all.has(each)) each();
  };
  listening.set(signal, { all, tell });
  try {
    signal.addEventListener('abort', tell);
  } catch (error) {
    all.clear();
    listening.delete(signal);
    throw error;
  }
}

/** With the last one nobody listens: nor to those of some libraries, which can not forget, and call yet. */
export function stopListening(signal: AbortSignal, listener: Listener): void {
  const listeners = listening.get(signal);
  if (listeners?.all.delete(listener) !== true || listeners.all.size > 0) return;
  listening.delete(signal);
  try {
    signal.removeEventListener('abort', listeners.tell);
  } catch {
    // It must not keep anybody from what comes next.
  }
}
