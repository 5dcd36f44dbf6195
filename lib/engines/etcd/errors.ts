// The words for what can go wrong with etcd.
import { LockError, unavailableError } from '../../common/errors';

/** The first version whose watches and transactions do what is needed. */
export const SERVER_VERSION_MIN = '3.4';

/** Status codes of gRPC, as far as anything depends on them. */
export const Status = {
  INVALID_ARGUMENT: 3,
  NOT_FOUND: 5,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  UNIMPLEMENTED: 12,
  UNAUTHENTICATED: 16,
} as const;

const TOO_MANY_REQUESTS = 'etcdserver: too many requests';

/** How a call fails that etcd has answered. */
export interface ServerError extends Error {
  readonly code: number;
  readonly details: string;
}

export function isServerError(error: unknown): error is ServerError {
  return error instanceof Error && 'details' in error && 'code' in error && typeof error.code === 'number';
}

/**
 * Whether it is known that what was asked for was not done, and what to do about it. A member that has too much to do says
 * so with the code of a full disk, and only the words tell: it is one that can not help now, as one that does not answer.
 */
export function isDefinite({ code, details }: ServerError): boolean {
  if (code === Status.RESOURCE_EXHAUSTED && details === TOO_MANY_REQUESTS) return false;
  return (Object.values(Status) as number[]).includes(code);
}

/**
 * `ERR_LOCK_UNAVAILABLE`: it is not known whether it was done.
 *
 * @param what that could not be done, in words
 */
export function toLockError(what: string, error: unknown, prefix: string): LockError {
  if (error instanceof LockError) return error;
  if (!isServerError(error) || !isDefinite(error)) return unavailableError(what, error);
  const because = `Could not ${what}: ${error.details}`;
  switch (error.code) {
    case Status.INVALID_ARGUMENT:
    case Status.UNAUTHENTICATED:
      return new LockError('ERR_LOCK_PERMISSION', `${because}; check \`auth\`: username and password`, {
        cause: error,
      });
    case Status.PERMISSION_DENIED:
      return new LockError('ERR_LOCK_PERMISSION', `${because}; ${whatToGrant(prefix)}`, { cause: error });
    case Status.RESOURCE_EXHAUSTED:
      return new LockError(
        'ERR_LOCK_NO_SPACE',
        `${because}; if the database is full: compact and defragment it, raise --quota-backend-bytes, then disarm the alarm`,
        { cause: error },
      );
    case Status.UNIMPLEMENTED:
      return new LockError(
        'ERR_LOCK_UNSUPPORTED',
        `${because}; that is no etcd ${SERVER_VERSION_MIN} or newer`,
        {
          cause: error,
        },
      );
    default:
      return unavailableError(what, error);
  }
}

function whatToGrant(prefix: string): string {
  return `the role needs: etcdctl role grant-permission ROLE --prefix=true readwrite '${prefix}'`;
}

export function missingRightsError(prefix: string, cause: unknown): LockError {
  return new LockError(
    'ERR_LOCK_PERMISSION',
    `The user may not watch keys under "${prefix}"; ${whatToGrant(prefix)}`,
    {
      cause,
    },
  );
}

export function noClientLibraryError(cause: unknown): LockError {
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    'proclock/etcd needs the package `@grpc/grpc-js`, which is not installed beside it: npm install @grpc/grpc-js',
    { cause },
  );
}

export function oldServerError(version: string): LockError {
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    `The server is etcd ${version}, and ${SERVER_VERSION_MIN} is the first one that does what is needed; update the server`,
  );
}

export function silentError(ms: number): LockError {
  return new LockError('ERR_LOCK_UNAVAILABLE', `etcd has not answered for ${ms} ms`);
}

export function expiredError(): LockError {
  return new LockError(
    'ERR_LOCK_UNAVAILABLE',
    'the lease has ended: etcd did not hear of it in time, or somebody has revoked it',
  );
}

export function forgottenError(): LockError {
  return new LockError(
    'ERR_LOCK_UNAVAILABLE',
    'somebody has deleted keys of the lock: the session is not to be relied on',
  );
}
