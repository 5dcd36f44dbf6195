// What can go wrong, and the words for it, as far as it is the same for all locks.
import type { LockInfo } from './types';

/** Every `code` that a {@link LockError} can have. */
export type LockErrorCode =
  | 'ERR_LOCK_TIMEOUT'
  | 'ERR_LOCK_NOT_REENTRANT'
  | 'ERR_LOCK_UPGRADE'
  | 'ERR_LOCK_NOT_HELD'
  | 'ERR_LOCK_WOULD_DEADLOCK'
  | 'ERR_LOCK_CLOSED'
  | 'ERR_LOCK_CAPACITY'
  | 'ERR_LOCK_NO_SPACE'
  | 'ERR_LOCK_PERMISSION'
  | 'ERR_LOCK_INCOMPATIBLE'
  | 'ERR_LOCK_CORRUPT'
  | 'ERR_LOCK_NAMESPACE_REMOVED'
  | 'ERR_LOCK_UNSUPPORTED'
  | 'ERR_LOCK_LOST'
  | 'ERR_LOCK_DEADLOCK'
  | 'ERR_LOCK_UNAVAILABLE';

/** What went wrong with a lock. Tell errors apart by {@link LockError.code}, never by their text. */
export class LockError extends Error {
  /** `'LockError'`. */
  override readonly name = 'LockError';
  /** What went wrong. */
  readonly code: LockErrorCode;
  /** With `ERR_LOCK_TIMEOUT`: who held the lock when the time was up. */
  declare readonly holders?: LockInfo[];
  /** With `ERR_LOCK_DEADLOCK`: who waits for whom, from the wait that failed back to itself. */
  declare readonly cycle?: LockInfo[];

  constructor(
    code: LockErrorCode,
    message: string,
    details: { cause?: unknown; holders?: LockInfo[]; cycle?: LockInfo[] } = {},
  ) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.code = code;
    if (details.holders !== undefined) this.holders = details.holders;
    if (details.cycle !== undefined) this.cycle = details.cycle;
  }
}

/** What an error message needs to know of the lock that it is about. */
export interface Named {
  readonly name: string;
}

/** A name as it stands in a message. */
export function shown(name: string): string {
  // Also what JSON leaves as it is, and a terminal takes for an order: C1, and the direction of writing.
  const text = JSON.stringify(name).replace(
    /[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return text.length > 80 ? `${text.slice(0, 79)}…"` : text;
}

/** How many holders a message names. */
const HOLDERS_NAMED_MAX = 4;

/** A holder, as a message names it. Never by its command line, which may hold secrets. */
function shownHolder({ host, mode, pid, since, threadId }: LockInfo, isStopped: boolean): string {
  const where = host === undefined ? '' : ` on ${host}`;
  const age = `for ${(Math.max(Date.now() - since.getTime(), 0) / 1000).toFixed(1)} s`;
  return `pid ${pid} thread ${threadId}${where} (${mode}, ${age}${isStopped ? ', stopped' : ''})`;
}

/** What a message can tell of a wait, beyond who held the lock. */
export interface WaitDetails {
  /** Which of the holders do not run: SIGSTOP, or a debugger. */
  readonly stopped?: ReadonlySet<LockInfo>;
  /** How many were ahead in the queue. */
  readonly ahead?: number | undefined;
}

export function timeoutError(
  subject: Named,
  mode: string,
  timeoutMs: number,
  holders: LockInfo[],
  { ahead, stopped }: WaitDetails = {},
): LockError {
  const who = holders
    .slice(0, HOLDERS_NAMED_MAX)
    .map((holder) => shownHolder(holder, stopped?.has(holder) === true));
  if (holders.length > who.length) who.push(`${holders.length - who.length} more`);
  const found =
    who.length === 0 ? 'nobody held it at that moment, others were first' : `held by ${who.join(', ')}`;
  const place = ahead === undefined ? '' : `; number ${ahead + 1} in the queue`;
  return new LockError(
    'ERR_LOCK_TIMEOUT',
    `Could not acquire ${shown(subject.name)} (${mode}) within ${timeoutMs} ms: ${found}${place}`,
    { holders },
  );
}

export function notReentrantError(subject: Named, held: string, wanted: string): LockError {
  return new LockError(
    'ERR_LOCK_NOT_REENTRANT',
    `Cannot acquire ${shown(subject.name)} (${wanted}): this owner holds it already (${held}), and the lock is not ` +
      'reentrant; use SharedRLock or RLock, or release it first',
  );
}

export function nestedDowngradeError(subject: Named): LockError {
  return new LockError(
    'ERR_LOCK_NOT_REENTRANT',
    `Cannot downgrade ${shown(subject.name)}: guards of nested acquires count on its exclusive mode; release them first`,
  );
}

export function upgradeError(subject: Named): LockError {
  return new LockError(
    'ERR_LOCK_UPGRADE',
    `Cannot upgrade a shared lock to an exclusive lock: ${shown(subject.name)} is held shared by this owner; release ` +
      'it first, or acquire it exclusively from the start',
  );
}

export function closedError(subject: Named): LockError {
  return new LockError(
    'ERR_LOCK_CLOSED',
    `The handle of ${shown(subject.name)} was closed; make a new one with the same name`,
  );
}

export function spaceClosedError(): LockError {
  return new LockError(
    'ERR_LOCK_CLOSED',
    'The space was closed; open another one, and make the locks anew over it',
  );
}

/** Another holder upgrades already: each would wait for the other. */
export function secondUpgradeError(subject: Named): LockError {
  return new LockError(
    'ERR_LOCK_UPGRADE',
    `Cannot upgrade the shared hold of ${shown(subject.name)}: another holder is upgrading, and each would wait for the ` +
      'other for ever; release it, and acquire exclusively',
  );
}

export function nestedUpgradeError(subject: Named): LockError {
  return new LockError(
    'ERR_LOCK_UPGRADE',
    `Cannot upgrade the shared hold of ${shown(subject.name)}: guards of nested acquires count on its shared mode; release ` +
      'them first',
  );
}

export function pendingUpgradeError(subject: Named): LockError {
  return new LockError(
    'ERR_LOCK_UPGRADE',
    `Cannot upgrade the shared hold of ${shown(subject.name)}: it is being upgraded already; wait for that`,
  );
}

export function releasedInUpgradeError(subject: Named): LockError {
  return notHeldError(subject, 'it was released while it was to be upgraded');
}

export function notHeldError(subject: Named, what = 'lock released too many times'): LockError {
  return new LockError('ERR_LOCK_NOT_HELD', `${shown(subject.name)} is not held by this guard: ${what}`);
}

/** The cause of a loss: somebody took the lock by force. */
export class Theft extends Error {
  /** `'Theft'`. */
  override readonly name = 'Theft';
}

/** @param cause why it ended: a {@link Theft}, or what happened to the namespace, session or lease */
export function lostError(subject: Named, cause: Error): LockError {
  return new LockError(
    'ERR_LOCK_LOST',
    `The hold of ${shown(subject.name)} ended without its holder: ${cause.message}. Others may hold the lock since; what was ` +
      'done under it has to be checked',
    { cause },
  );
}

/** @param what that could not be done */
export function unavailableError(what: string, cause: unknown): LockError {
  // Not `instanceof`: where tests run in a context of their own, an error of Node is of another one.
  const { code, message: why = 'it does not answer' } = (cause ?? {}) as Partial<LockError>;
  const said = code === 'ERR_LOCK_UNAVAILABLE' ? '' : ', the engine can not be reached';
  return new LockError('ERR_LOCK_UNAVAILABLE', `Could not ${what}${said}: ${why}`, { cause });
}

/** Whether an error is the loss of a hold. */
export function isLoss(error: unknown): error is LockError {
  return (error as Partial<LockError> | undefined)?.code === 'ERR_LOCK_LOST';
}

/** Whether a hold was lost because its own space was closed. */
export function isClosing({ cause }: LockError): boolean {
  return (cause as Partial<LockError> | undefined)?.code === 'ERR_LOCK_CLOSED';
}

/** @param instead what to use */
export function syncError(subject: Named, what: string, instead: string): LockError {
  return new LockError(
    'ERR_LOCK_UNSUPPORTED',
    `${what} of ${shown(subject.name)}: this is in an engine that answers later, and nothing here can block; use ${instead}`,
  );
}

export function wouldDeadlockError(subject: Named, mode: string): LockError {
  return new LockError(
    'ERR_LOCK_WOULD_DEADLOCK',
    `Waiting for ${shown(subject.name)} (${mode}) would block the very thread that holds it; release the guard first, ` +
      'or wait asynchronously',
  );
}

/** Waits that go round in a circle. `cycle` ends where it began. */
export function shownCycle(cycle: readonly LockInfo[]): string {
  const who = ({ pid, threadId }: LockInfo): string => `pid ${pid} thread ${threadId}`;
  const first = cycle[0] as LockInfo;
  const waits = cycle.slice(0, -1).map(({ name, mode }, at) => {
    const next = cycle[at + 1] as LockInfo;
    return `waits for ${shown(name)} (${mode}), behind ${who(next)}`;
  });
  return `${who(first)} ${waits.join(', which ')}`;
}

/** @param cycle from the wait that fails back to itself */
export function deadlockError(cycle: LockInfo[]): LockError {
  return new LockError(
    'ERR_LOCK_DEADLOCK',
    `Deadlock: ${shownCycle(cycle)}. This wait fails for the others to go on; give back what is held here, and take locks in ` +
      'the same order everywhere, as acquireAll does',
    { cycle },
  );
}

// ---- wrong arguments, in the words of Node's own API

function received(value: unknown): string {
  if (value == null) return ` Received ${value}`;
  if (typeof value === 'function') return ` Received function ${value.name}`;
  if (typeof value === 'object') return ` Received an instance of ${value.constructor?.name ?? 'Object'}`;
  return ` Received type ${typeof value} (${typeof value === 'string' ? shown(value) : String(value)})`;
}

const withCode = <E extends Error>(error: E, code: string): E & { code: string } =>
  Object.assign(error, { code });

export function argumentTypeError(name: string, expected: string, value: unknown): TypeError {
  return withCode(
    new TypeError(`The "${name}" argument must be ${expected}.${received(value)}`),
    'ERR_INVALID_ARG_TYPE',
  );
}

/** @param value left out where it may have a password in it */
export function argumentValueError(name: string, reason: string, ...value: [unknown?]): TypeError {
  const end = value.length === 0 ? '' : received(value[0]);
  return withCode(new TypeError(`The argument "${name}" ${reason}.${end}`), 'ERR_INVALID_ARG_VALUE');
}

export function returnTypeError(name: string, expected: string, value: unknown): TypeError {
  return withCode(
    new TypeError(`The "${name}" function must return ${expected}.${received(value)}`),
    'ERR_INVALID_RETURN_VALUE',
  );
}

export function outOfRangeError(name: string, range: string, value: unknown): RangeError {
  return withCode(
    new RangeError(`The value of "${name}" is out of range. It must be ${range}.${received(value)}`),
    'ERR_OUT_OF_RANGE',
  );
}
