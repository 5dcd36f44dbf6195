// The locks that `ls` and `watch` show, wherever they are.
import { abandonedData } from '../common/inspect';
import type { LockInfo } from '../common/types';
import type { EngineSpace } from '../remote/space';
import { type LockState, locksOf, segmentsOfUser } from '../shm/admin';
import { ENGINE_OPTIONS, spaceOf } from './engine';
import { lineOf, type OptionConfigs, parse, UsageError, type Values } from './usage';

export const LIST_OPTIONS: OptionConfigs = {
  json: { type: 'boolean' },
  namespace: { type: 'string' },
  ...ENGINE_OPTIONS,
};

export type { LockState };

/** Of which locks something is to be shown. */
export interface Source {
  /** Once more. @returns what could not be looked at, as lines, beside what could */
  look(): Promise<{ locks: LockState[]; problems: string[] }>;
  close(): Promise<void>;
}

function lookAtMemory(namespace: string | undefined): { locks: LockState[]; problems: string[] } {
  const locks: LockState[] = [];
  const problems: string[] = [];
  for (const segment of segmentsOfUser()) {
    if (namespace !== undefined && segment.namespace !== namespace) continue;
    try {
      locks.push(...locksOf(segment));
    } catch (error) {
      // One that was pruned meanwhile has no locks.
      if ((error as { code?: string }).code !== 'ERR_LOCK_NAMESPACE_REMOVED') problems.push(lineOf(error));
    }
  }
  return { locks, problems };
}

async function lookAtSpace(space: EngineSpace): Promise<LockState[]> {
  const [{ held, pending }, marks] = await Promise.all([space.query(), space.marks()]);
  const abandoned = new Map(marks.map((mark) => [mark.name, mark.abandoned]));
  const names = new Set([
    ...held.map(({ name }) => name),
    ...pending.map(({ name }) => name),
    ...abandoned.keys(),
  ]);
  const ofName = (infos: LockInfo[], name: string) => infos.filter((info) => info.name === name);
  return [...names].sort().map((name) => ({
    namespace: space.namespace,
    name,
    held: ofName(held, name),
    pending: ofName(pending, name),
    abandoned: abandoned.get(name) ?? null,
    deadlock: false,
  }));
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
