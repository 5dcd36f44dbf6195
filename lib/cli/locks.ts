// The locks that `ls` and `watch` show, wherever they are.
import { abandonedData } from '../common/inspect';
import type { Abandoned, LockInfo } from '../common/types';
import type { EngineSpace } from '../remote/space';
import { contentOf, type SegmentContent, segmentsOfUser } from '../shm/admin';
import { ENGINE_OPTIONS, spaceOf } from './engine';
import { lineOf, type OptionConfigs, parse, UsageError, type Values } from './usage';

export const LIST_OPTIONS: OptionConfigs = {
  json: { type: 'boolean' },
  namespace: { type: 'string' },
  ...ENGINE_OPTIONS,
};

/** One lock, as all see it. */
export interface LockState {
  readonly namespace: string;
  readonly group?: number;
  readonly name: string;
  readonly held: LockInfo[];
  readonly pending: LockInfo[];
  readonly abandoned: Abandoned | null;
  readonly deadlock: boolean;
}

/** Of which locks something is to be shown. */
export interface Source {
  /** Once more. @returns what could not be looked at, as lines, beside what could */
  look(): Promise<{ locks: LockState[]; problems: string[] }>;
  close(): Promise<void>;
}

/** Every lock that is held, waited for, or left by a dead holder, by name. There may be as many as a namespace has names. */
function statesOf(where: { namespace: string; group?: number }, content: SegmentContent): LockState[] {
  const states = new Map<string, LockState>();
  const stateOf = (name: string): LockState => {
    let state = states.get(name);
    if (state === undefined) {
      const abandoned = content.abandoned.get(name) ?? null;
      state = { ...where, name, held: [], pending: [], abandoned, deadlock: content.deadlocks.has(name) };
      states.set(name, state);
    }
    return state;
  };
  for (const info of content.held) stateOf(info.name).held.push(info);
  for (const info of content.pending) stateOf(info.name).pending.push(info);
  for (const name of content.abandoned.keys()) stateOf(name);
  return [...states.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function lookAtMemory(namespace: string | undefined): { locks: LockState[]; problems: string[] } {
  const problems: string[] = [];
  const locks = segmentsOfUser().flatMap((segment) => {
    const { group } = segment;
    if (namespace !== undefined && segment.namespace !== namespace) return [];
    try {
      return statesOf({ namespace: segment.namespace, ...(group >= 0 && { group }) }, contentOf(segment));
    } catch (error) {
      problems.push(lineOf(error));
      return [];
    }
  });
  return { locks, problems };
}

async function lookAtSpace(space: EngineSpace): Promise<LockState[]> {
  const [{ held, pending }, marks] = await Promise.all([space.query(), space.marks()]);
  const abandoned = new Map(marks.map((mark) => [mark.name, mark.abandoned]));
  return statesOf({ namespace: space.namespace }, { held, pending, abandoned, deadlocks: new Set() });
}

/** What was typed after `ls` or `watch`. */
export async function sourceOf(args: string[]): Promise<{ source: Source; values: Values }> {
  const { names, values } = parse(args, LIST_OPTIONS);
  const { namespace } = values as { namespace?: string };
  if (namespace !== undefined && !/^[A-Za-z0-9._-]{1,64}$/.test(namespace))
    throw new UsageError('a namespace is 1 to 64 characters of A-Z a-z 0-9 . _ -');
  const space = (await spaceOf(values)) as EngineSpace | undefined;
  const wanted = ({ name }: LockState): boolean => names.length === 0 || names.includes(name);
  const source: Source = {
    look: async () => {
      const { locks, problems } =
        space === undefined ? lookAtMemory(namespace) : { locks: await lookAtSpace(space), problems: [] };
      return { locks: locks.filter(wanted), problems };
    },
    close: async () => space?.close(),
  };
  return { source, values };
}

/** As `--json` prints them. Dates become ISO strings by themselves. */
export function jsonOf(locks: LockState[]): string {
  return JSON.stringify(
    locks.map(({ abandoned, ...lock }) => ({
      ...lock,
      abandoned: abandoned === null ? null : abandonedData(abandoned),
    })),
  );
}
