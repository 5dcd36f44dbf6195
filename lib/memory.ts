export { type MemorySpace, memory } from './engines/memory/memory';
export type { Space, SpaceOptions } from './remote/space';
