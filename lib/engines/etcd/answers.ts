// What the values and revisions of keys mean to those who asked.
import type { Abandoned, LockInfo } from '../../common/types';
import type { Grant } from '../../remote/engine';
import { lastPart } from './keys';
import type { KeyValue } from './messages';
import type { Reply } from './txn';

/** What the holder of that slot is told. */
export function grantIn(reply: Reply, slot: string): Grant {
  const mark = reply.all('marks').find(({ key }) => lastPart(key) !== slot);
  return {
    token: BigInt(reply.first('token')?.modRevision ?? 0),
    abandoned: mark === undefined ? null : abandonedIn(mark),
    flights: flightsIn(reply),
  };
}

/** Who left that mark. */
export function abandonedIn({ value, modRevision }: KeyValue): Abandoned {
  const { pid, threadId, since } = JSON.parse(value.toString()) as Record<
    'pid' | 'threadId' | 'since',
    number
  >;
  return { pid, threadId, since: new Date(since), token: BigInt(modRevision) };
}

/** A number that grows with each flight. */
export function flightsIn(reply: Reply): number {
  return reply.first('flights')?.modRevision ?? 0;
}

/** Who holds or waits, as its key says. */
export function infoIn({ value }: KeyValue): LockInfo {
  const info = JSON.parse(value.toString());
  return { ...info, since: new Date(info.since) };
}
