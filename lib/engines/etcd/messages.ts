// The messages of etcd's API, as far as they are used: the subset of its rpc.proto and kv.proto, field by field.
import { type Description, decode, encode } from './protobuf';

const header: Description = { revision: [3, 'int'] };

const keyValue: Description = {
  key: [1, 'bytes'],
  createRevision: [2, 'int'],
  modRevision: [3, 'int'],
  value: [5, 'bytes'],
};

export interface KeyValue {
  readonly key: Buffer;
  /** Of the change that made the key. */
  readonly createRevision: number;
  /** Of the last change of it. */
  readonly modRevision: number;
  readonly value: Buffer;
}

export const Order = { DESCENDING: 2 } as const;
export const SortBy = { CREATE: 2, MOD: 3 } as const;

const rangeRequest: Description = {
  key: [1, 'bytes'],
  rangeEnd: [2, 'bytes'],
  limit: [3, 'int'],
  sortOrder: [5, 'int'],
  sortTarget: [6, 'int'],
  keysOnly: [8, 'bool'],
  maxCreateRevision: [13, 'int'],
};

export interface RangeRequest {
  readonly key: Buffer;
  readonly rangeEnd?: Buffer | undefined;
  readonly limit?: number | undefined;
  readonly sortOrder?: number | undefined;
  readonly sortTarget?: number | undefined;
  readonly keysOnly?: boolean | undefined;
  readonly maxCreateRevision?: number | undefined;
}

const rangeResponse: Description = { kvs: [2, () => keyValue, 'many'] };

const putRequest: Description = { key: [1, 'bytes'], value: [2, 'bytes'], lease: [3, 'id'] };

export interface PutRequest {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly lease?: bigint | undefined;
}

const deleteRequest: Description = { key: [1, 'bytes'], rangeEnd: [2, 'bytes'] };

export interface DeleteRequest {
  readonly key: Buffer;
  readonly rangeEnd?: Buffer | undefined;
}

export const Result = { EQUAL: 0, LESS: 2, GREATER: 1 } as const;
export const Target = { CREATE: 1, MOD: 2, VALUE: 3 } as const;

const compare: Description = {
  result: [1, 'int'],
  target: [2, 'int'],
  key: [3, 'bytes'],
  createRevision: [5, 'int'],
  modRevision: [6, 'int'],
  value: [7, 'bytes'],
  rangeEnd: [64, 'bytes'],
};

export interface Compare {
  readonly result: number;
  readonly target: number;
  readonly key: Buffer;
  readonly createRevision?: number;
  readonly modRevision?: number;
  readonly value?: Buffer;
  /** It has to be so for every key of the range; a range without keys is as a key that is not there: its revisions are 0. */
  readonly rangeEnd?: Buffer;
}

const requestOp: Description = {
  range: [1, () => rangeRequest],
  put: [2, () => putRequest],
  delete: [3, () => deleteRequest],
  txn: [4, () => txnRequest],
};

export interface RequestOp {
  readonly range?: RangeRequest;
  readonly put?: PutRequest;
  readonly delete?: DeleteRequest;
  readonly txn?: TxnRequest;
}

const txnRequest: Description = {
  compare: [1, () => compare, 'many'],
  success: [2, () => requestOp, 'many'],
  failure: [3, () => requestOp, 'many'],
};

export interface TxnRequest {
  readonly compare: readonly Compare[];
  readonly success: readonly RequestOp[];
  readonly failure: readonly RequestOp[];
}

const responseOp: Description = { range: [1, () => rangeResponse], txn: [4, () => txnResponse] };

export interface ResponseOp {
  readonly range?: { readonly kvs: readonly KeyValue[] };
  readonly txn?: TxnResponse;
}

const txnResponse: Description = {
  header: [1, () => header],
  succeeded: [2, 'bool'],
  responses: [3, () => responseOp, 'many'],
};

export interface TxnResponse {
  /** In the answer to the whole transaction. */
  readonly header?: { readonly revision: number };
  readonly succeeded: boolean;
  readonly responses: readonly ResponseOp[];
}

export const EventType = { PUT: 0, DELETE: 1 } as const;
export const Filter = { NO_PUT: 0 } as const;

const watchCreateRequest: Description = {
  key: [1, 'bytes'],
  rangeEnd: [2, 'bytes'],
  startRevision: [3, 'int'],
  filters: [5, 'int', 'many'],
  watchId: [7, 'int'],
};

const watchCancelRequest: Description = { watchId: [1, 'int'] };

const watchRequest: Description = {
  create: [1, () => watchCreateRequest],
  cancel: [2, () => watchCancelRequest],
};

export interface WatchRequest {
  readonly create?: {
    readonly key: Buffer;
    readonly rangeEnd?: Buffer | undefined;
    /** If it is missing, the next one. */
    readonly startRevision?: number | undefined;
    readonly filters: readonly number[];
    readonly watchId: number;
  };
  readonly cancel?: { readonly watchId: number };
}

const event: Description = { type: [1, 'int'], kv: [2, () => keyValue] };

const watchResponse: Description = {
  header: [1, () => header],
  watchId: [2, 'int'],
  created: [3, 'bool'],
  canceled: [4, 'bool'],
  compactRevision: [5, 'int'],
  cancelReason: [6, 'string'],
  events: [11, () => event, 'many'],
};

export interface WatchEvent {
  readonly type: number;
  readonly kv: KeyValue;
}

export interface WatchResponse {
  readonly header?: { readonly revision: number };
  readonly watchId: number;
  readonly created: boolean;
  readonly canceled: boolean;
  /** Not 0: what was to be watched from there on is forgotten, before that revision. */
  readonly compactRevision: number;
  readonly cancelReason: string;
  readonly events: readonly WatchEvent[];
}

// ---- the calls

/** A call of the API: where it is, and how question and answer become bytes. */
export interface Method<Q, A> {
  readonly path: string;
  serialize(question: Q): Buffer;
  deserialize(bytes: Buffer): A;
}

function method<Q extends object, A>(path: string, question: Description, answer: Description): Method<Q, A> {
  return {
    path: `/etcdserverpb.${path}`,
    serialize: (message) => encode(question, message),
    deserialize: (bytes) => decode(answer, bytes) as A,
  };
}

export const txn = method<TxnRequest, TxnResponse>('KV/Txn', txnRequest, txnResponse);

export const leaseGrant = method<{ ttl: number; id: bigint }, { ttl: number }>(
  'Lease/LeaseGrant',
  { ttl: [1, 'int'], id: [2, 'id'] },
  { id: [2, 'id'], ttl: [3, 'int'] },
);

export const leaseRevoke = method<{ id: bigint }, object>('Lease/LeaseRevoke', { id: [1, 'id'] }, {});

export const leaseKeepAlive = method<{ id: bigint }, { ttl: number }>(
  'Lease/LeaseKeepAlive',
  { id: [1, 'id'] },
  { ttl: [3, 'int'] },
);

export const watch = method<WatchRequest, WatchResponse>('Watch/Watch', watchRequest, watchResponse);

export const authenticate = method<{ name: string; password: string }, { token: string }>(
  'Auth/Authenticate',
  { name: [1, 'string'], password: [2, 'string'] },
  { token: [2, 'string'] },
);

export const status = method<object, { version: string }>(
  'Maintenance/Status',
  {},
  { version: [2, 'string'] },
);
