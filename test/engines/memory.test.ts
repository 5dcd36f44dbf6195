// The conformance suite over the engine in memory.
import { all } from './cases';
import { engineInMemory } from './memory';
import { conform } from './stage';

conform(engineInMemory, all);
