// Transactions in a form that can be read: conditions, what to do if they are met, what if not. What is read has a name, by
// which the answer is found, however deep in other transactions it was asked for.
//
// etcd looks at all conditions, also those of the transactions within, before it does anything: a condition never sees what
// the same transaction writes.
import {
  type Compare,
  type KeyValue,
  Order,
  type RequestOp,
  Result,
  SortBy,
  Target,
  type TxnRequest,
  type TxnResponse,
} from './messages';

/** Keys: one, or all that begin with what `from` is. */
export interface Keys {
  readonly key: Buffer;
  readonly rangeEnd?: Buffer;
}

export interface Txn {
  /** By which the answer tells whether the conditions were met. */
  readonly as: string;
  readonly when: readonly Compare[];
  readonly does: readonly Op[];
  readonly otherwise?: readonly Op[];
}

export type Op =
  | { readonly put: Buffer; readonly value: string; readonly lease?: bigint }
  | { readonly delete: Keys }
  | ({ readonly as: string; readonly get: Keys } & Choice)
  | Txn;

/** Which of the keys are wanted. */
interface Choice {
  /** All, in the order of the keys, if it is not said. */
  readonly newest?: 'created' | 'changed';
  readonly limit?: number;
  /** Created before that revision. */
  readonly before?: number;
  readonly withValues?: boolean;
}

export const only = (key: string): Keys => ({ key: Buffer.from(key) });

export function startingWith(prefix: string): Keys {
  const key = Buffer.from(prefix);
  const rangeEnd = Buffer.from(key);
  // Keys of ours end with a character that has a next one.
  rangeEnd[rangeEnd.length - 1] = (rangeEnd[rangeEnd.length - 1] as number) + 1;
  return { key, rangeEnd };
}

// ---- conditions

/** There is no such key. */
export const none = (keys: Keys): Compare => created(keys, Result.EQUAL, 0);
export const exists = (key: string): Compare => created(only(key), Result.GREATER, 0);
/** Every one of the keys was created by that change; so there is one at most. */
export const allCreatedAt = (keys: Keys, revision: number): Compare => created(keys, Result.EQUAL, revision);
export const noneCreatedAfter = (keys: Keys, revision: number): Compare =>
  created(keys, Result.LESS, revision + 1);
export const changedAt = (key: string, revision: number): Compare => ({
  ...only(key),
  result: Result.EQUAL,
  target: Target.MOD,
  modRevision: revision,
});
export const hasValue = (key: string, value: string): Compare => ({
  ...only(key),
  result: Result.EQUAL,
  target: Target.VALUE,
  value: Buffer.from(value),
});

/** Not met where there are no keys: see {@link either}. */
export const allCreatedFrom = (keys: Keys, revision: number): Compare =>
  created(keys, Result.GREATER, revision - 1);

function created(keys: Keys, result: number, revision: number): Compare {
  return { ...keys, result, target: Target.CREATE, createRevision: revision };
}

/** Both conditions lead to the same; for conditions of one transaction have to be met together. */
export function either({ as, when, does, otherwise = [] }: Txn, one: Compare, other: Compare): Txn {
  const second: Txn = { as, when: [...when, other], does, otherwise };
  return { as, when: [...when, one], does, otherwise: [second] };
}

// ---- what goes out

export function toRequest({ when, does, otherwise = [] }: Txn): TxnRequest {
  return { compare: when, success: does.map(toOp), failure: otherwise.map(toOp) };
}

function toOp(op: Op): RequestOp {
  if ('put' in op) return { put: { key: op.put, value: Buffer.from(op.value), lease: op.lease } };
  if ('delete' in op) return { delete: op.delete };
  if ('when' in op) return { txn: toRequest(op) };
  const { newest, limit, before, withValues = false } = op;
  return {
    range: {
      ...op.get,
      limit,
      keysOnly: withValues ? undefined : true,
      maxCreateRevision: before === undefined ? undefined : before - 1,
      sortOrder: newest === undefined ? undefined : Order.DESCENDING,
      sortTarget: newest === undefined ? undefined : newest === 'created' ? SortBy.CREATE : SortBy.MOD,
    },
  };
}

// ---- what comes back

const NOTHING: readonly KeyValue[] = [];

export class Reply {
  readonly revision: number;
  private readonly met = new Map<string, boolean>();
  private readonly found = new Map<string, readonly KeyValue[]>();

  constructor(txn: Txn, response: TxnResponse) {
    this.revision = response.header?.revision ?? 0;
    this.read(txn, response);
  }

  /** Whether the conditions of the transaction of that name were met. False also if it was not come to. */
  did(as: string): boolean {
    return this.met.get(as) === true;
  }

  /** What was read by that name; nothing if it was not come to. */
  all(as: string): readonly KeyValue[] {
    return this.found.get(as) ?? NOTHING;
  }

  first(as: string): KeyValue | undefined {
    return this.all(as)[0];
  }

  private read(txn: Txn, response: TxnResponse): void {
    this.met.set(txn.as, response.succeeded);
    const ops = response.succeeded ? txn.does : (txn.otherwise ?? []);
    for (const [index, op] of ops.entries()) {
      const answer = response.responses[index];
      if ('when' in op && answer?.txn !== undefined) this.read(op, answer.txn);
      else if ('get' in op) this.found.set(op.as, answer?.range?.kvs ?? NOTHING);
    }
  }
}
