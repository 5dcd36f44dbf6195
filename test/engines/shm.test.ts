// The conformance suite over shared memory.
import { all } from './cases';
import { shm } from './shm';
import { conform } from './stage';

conform(shm, all);
