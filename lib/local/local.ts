// An object that each process and each thread sees its own content of.
//
// Threads and processes share no objects in JavaScript, so that a variable of this file would do, but for two cases: a
// process that begins with a copy of another one's heap (see epoch.ts). Every access therefore compares the epoch in
// which the content was made with that of the process, and makes it anew where they differ.
//
// A proxy's traps may not promise more than its target does, for ever, and no content lasts for ever here. The target
// is therefore an object of ours that can be extended and has nothing that can not be configured, and so has the Local:
// its properties are configurable, whatever they are in the content, and it can not be frozen.
//
// Methods that the content inherits are called on the content, not on the proxy, because private fields and those inside
// of a Map or a Date are reached in no other way. What is the content's own is left as it is: a function that was stored
// is the function that is read.
import { startupSnapshot } from 'node:v8';
import { argumentTypeError, returnTypeError } from '../common/errors';
import { beginEpoch, currentEpoch } from './epoch';

// biome-ignore lint/suspicious/noExplicitAny: who does not say what is in it wants no checks.
type Content = Record<PropertyKey, any>;
type Method = (this: unknown, ...args: unknown[]) => unknown;

/** What a {@link Local} of this type is used as: the object itself. */
export type Local<T extends object = Content> = T;

/** The constructor {@link Local}. */
export interface LocalConstructor {
  /**
   * @param init - Makes the content, at the first access in a process and thread; where it throws, the next access tries
   * again.
   * @default init: () => ({})
   * @throws {TypeError} `ERR_INVALID_ARG_TYPE`; if a class extends it. On access: `ERR_INVALID_RETURN_VALUE` if `init` did
   * not return an object, `ERR_INVALID_STATE` if it used the very object that it is to make
   */
  new <T extends object = Content>(init?: () => T): T;
  /** Of no use: a Local has the prototype of its content. */
  readonly prototype: object;
  /** `value instanceof Local`: whether it was made by `new Local()`. */
  [Symbol.hasInstance](value: unknown): boolean;
}

const IS_LOCAL = Symbol('proclock.Local');
const INSPECT = Symbol.for('nodejs.util.inspect.custom');

const NEVER = -1;

/** The target of a Local's proxy: what its traps work with. */
class Cell {
  content: Content = {};
  /** When the content was made. */
  epoch = NEVER;
  making = false;
  methods = new Map<Method, Method>();
  local: object = {};

  constructor(readonly init: (() => object) | undefined) {}
}

function contentOf(cell: Cell): Content {
  return cell.epoch === currentEpoch() ? cell.content : makeContent(cell);
}

function makeContent(cell: Cell): Content {
  if (cell.making) throw usedItselfError();
  // As it is now: if init itself forks, the child begins anew.
  const now = currentEpoch();
  cell.making = true;
  try {
    const content: unknown = cell.init === undefined ? {} : cell.init();
    if (content === cell.local) throw usedItselfError();
    if (typeof content !== 'object' || content === null) throw returnTypeError('init', 'an object', content);
    cell.content = content;
    cell.methods = new Map();
    cell.epoch = now;
    return content;
  } finally {
    cell.making = false;
  }
}

function usedItselfError(): Error {
  const message = 'The init function of a Local used this Local; its content is what the function is to make';
  return Object.assign(new Error(message), { code: 'ERR_INVALID_STATE' });
}

function extendedError(): TypeError {
  return new TypeError(
    'A class can not extend Local: a Local is the object that init makes; use new Local(() => new MyClass())',
  );
}

/** A function that was read: one that is inherited, by itself or wrapped; any other as it is. */
function functionOf(cell: Cell, key: PropertyKey, value: Method): Method {
  const { content, methods } = cell;
  if (Object.hasOwn(content, key)) return value;
  const known = methods.get(value);
  if (known !== undefined) return known;
  // What every object has works on a proxy; and a class is no method of its instances.
  if (value === Object.prototype[key as keyof object] || key === 'constructor') return value;
  let owner = Object.getPrototypeOf(content);
  while (owner !== null && !Object.hasOwn(owner, key)) owner = Object.getPrototypeOf(owner);
  // A function that a getter returned is a value like any other.
  if (owner === null || Object.getOwnPropertyDescriptor(owner, key)?.value !== value) return value;
  const method = new Proxy(value, {
    apply(_, self, args) {
      if (self !== cell.local) return Reflect.apply(value, self, args);
      const own = contentOf(cell);
      const result = Reflect.apply(value, own, args);
      return result === own ? cell.local : result;
    },
  });
  methods.set(value, method);
  return method;
}

const traps: ProxyHandler<Cell> = {
  get(cell, key, receiver) {
    const content = contentOf(cell);
    // Another receiver is an object that inherits from the Local.
    if (receiver !== cell.local) return Reflect.get(content, key, receiver);
    const value = content[key];
    return typeof value === 'function' ? functionOf(cell, key, value) : value;
  },
  set(cell, key, value, receiver) {
    const content = contentOf(cell);
    return Reflect.set(content, key, value, receiver === cell.local ? content : receiver);
  },
  has: (cell, key) => key === IS_LOCAL || key in contentOf(cell),
  deleteProperty: (cell, key) => Reflect.deleteProperty(contentOf(cell), key),
  ownKeys: (cell) => Reflect.ownKeys(contentOf(cell)),
  getOwnPropertyDescriptor(cell, key) {
    const descriptor = Reflect.getOwnPropertyDescriptor(contentOf(cell), key);
    return descriptor && { ...descriptor, configurable: true };
  },
  defineProperty(cell, key, descriptor) {
    if (descriptor.configurable === false) return false;
    const content = contentOf(cell);
    // A new one that says nothing about it would not be configurable.
    const isNew = !Object.hasOwn(content, key);
    return Reflect.defineProperty(content, key, isNew ? { ...descriptor, configurable: true } : descriptor);
  },
  getPrototypeOf: (cell) => Reflect.getPrototypeOf(contentOf(cell)),
  setPrototypeOf: (cell, prototype) => Reflect.setPrototypeOf(contentOf(cell), prototype),
  preventExtensions: () => false,
};

/**
 * An object whose properties are seen only by the process and thread that set them. It is used as the object itself,
 * and whatever is done with it is done with an object that `init` makes at the first access: once per process and
 * thread, and once more in a process that goes on with the state of another, that is, after a start from a V8 startup
 * snapshot, and in the child of a raw `fork()` if the thread that forked had used a lock before (only native code can
 * notice a fork; and in most builds of Node no JavaScript runs in the child at all).
 *
 * Methods that the object inherits are called on it, so that private fields work, and the content of a `Map`. A Local can
 * not be frozen, sealed, or made non-extensible, and all of its properties are configurable: it begins anew where it has
 * to. `Array.isArray()` is false for it, whatever `init` returned.
 *
 * @example
 * ```ts
 * import { Local } from 'proclock/local';
 *
 * const local = new Local(() => ({ connection: connect(), queries: 0 }));
 *
 * export function query(text: string) {
 *   local.queries++; // of this thread of this process
 *   return local.connection.query(text);
 * }
 * ```
 */
export const Local = class Local {
  constructor(init?: () => object) {
    if (new.target !== Local) throw extendedError();
    if (init !== undefined && typeof init !== 'function') {
      throw argumentTypeError('init', 'of type function', init);
    }
    const cell = new Cell(init);
    // The target is what util.inspect() looks at, past the traps.
    Object.defineProperty(cell, INSPECT, { value: () => contentOf(cell), configurable: true });
    cell.local = new Proxy(cell, traps);
    // biome-ignore lint/correctness/noConstructorReturn: a proxy can not be made in any other way.
    return cell.local;
  }

  static [Symbol.hasInstance](value: unknown): boolean {
    return typeof value === 'object' && value !== null && IS_LOCAL in value;
  }
} as LocalConstructor;

// Optional: other runtimes than Node do not have it all.
if (startupSnapshot?.isBuildingSnapshot?.()) startupSnapshot.addDeserializeCallback(beginEpoch);
