// Builds of the native part that watch themselves: PROCLOCK_INSTRUMENT=address|thread|coverage; or that for macOS, compiled for
// this system (portable); or nothing for what is shipped. Each has a folder of its own, so that none disturbs another.
import { resolve } from 'node:path';

const KINDS = ['address', 'thread', 'coverage', 'portable'];

/** Which one it is, or ''. */
export const instrument = process.env.PROCLOCK_INSTRUMENT ?? '';
if (instrument !== '' && !KINDS.includes(instrument)) {
  throw new Error(`PROCLOCK_INSTRUMENT is "${instrument}", not one of ${KINDS.join(', ')}`);
}

/** Where node-gyp runs, relative to the package: below it are build/Release and what was built. */
export const nativeRoot = instrument === '' ? '.' : `build/${instrument}`;

/** In the environment of a program that uses the package: the addon that node-gyp-build is to load. */
export const nativeEnvironment = instrument === '' ? {} : { PROCLOCK_PREBUILD: resolve(nativeRoot) };
